"""agent.toml: what it says is checked as a whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent import config
from agent.errors import InvalidArgument

pytestmark = pytest.mark.unit


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "agent.toml"


@pytest.mark.parametrize("way", ["auto", "userfaultfd", "soft-dirty", "shadow"])
def test_the_dirty_tracker_is_the_operators_choice(path: Path, way: str) -> None:
    """Any of the ways that there are; nothing said is auto."""
    path.write_text(f'host = "host1"\ndirty_tracker = "{way}"\n')
    assert config.load(path).dirty_tracker == way
    path.write_text('host = "host1"\n')
    assert config.load(path).dirty_tracker == "auto"


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('dirty_tracker = "softdirty"', "dirty_tracker takes auto, userfaultfd, soft-dirty, shadow, not 'softdirty'"),
        ('way_out = "nat"', 'way_out takes "masquerade" or nothing'),
        ("idle_monitors = 1000", "idle_monitors takes a number from 0 to 64"),
        ('state_dir = "var"', "state_dir takes an absolute path"),
        ('tracker = "shadow"', "unknown field 'tracker'"),
    ],
)
def test_what_cannot_be_is_refused_by_name(path: Path, line: str, said: str) -> None:
    """The field, and what it takes."""
    path.write_text(f'host = "host1"\n{line}\n')
    with pytest.raises(InvalidArgument, match=said):
        config.load(path)
