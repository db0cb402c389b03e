"""docs/check.md and the catalog have the same checks, and say the same of skipping them; agents report no other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from migrate.coordinator.preflight import catalog

pytestmark = pytest.mark.unit

ROOT = Path(__file__).resolve().parents[5]


def test_every_check_is_in_the_table() -> None:
    """Its name, what it is about, whether it can be skipped."""
    table = re.findall(
        r"^\| `([a-z-]+)` \| (.+?) \| .+? \| (yes|no) \|$", (ROOT / "docs/check.md").read_text(), re.MULTILINE
    )
    documented = {name: (about, skip == "yes") for name, about, skip in table}
    assert documented == {each.name: (each.about, each.skippable) for each in catalog.CHECKS.values()}


def test_agents_know_no_other_names() -> None:
    """Each name that stands in the agent's code is in the catalog; else nobody could skip it."""
    files = [path for folder in ("scan", "handover", "services") for path in (ROOT / "agent" / folder).rglob("*.py")]
    names = {name for path in files for name in re.findall(r'check="([a-z-]+)"', path.read_text())}
    assert names
    assert names <= set(catalog.CHECKS)
