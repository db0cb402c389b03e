"""Which way to see writes an agent takes: of those that the kernel has, the best, or its operator's."""

from __future__ import annotations

import logging

import pytest

from agent import server
from agent.setup import probe

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("wanted", "kernel_has", "taken", "asked"),
    [
        ("auto", ["userfaultfd-wp", "soft-dirty"], "userfaultfd", ["userfaultfd-wp"]),
        ("auto", ["soft-dirty"], "soft-dirty", ["userfaultfd-wp", "soft-dirty"]),
        ("auto", [], "shadow", ["userfaultfd-wp", "soft-dirty"]),
        ("soft-dirty", ["userfaultfd-wp", "soft-dirty"], "soft-dirty", ["soft-dirty"]),
        ("shadow", ["userfaultfd-wp", "soft-dirty"], "shadow", []),
        ("soft-dirty", ["userfaultfd-wp"], "shadow", ["soft-dirty"]),
    ],
)
def test_the_choice(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    wanted: str,
    kernel_has: list[str],
    taken: str,
    asked: list[str],
) -> None:
    """No probe that is not needed; a choice that the kernel cannot keep is in the log."""
    monkeypatch.setattr(
        probe, "one", lambda name: probe.Capability(name=name, ok=name in kernel_has, value="asked the kernel")
    )
    known: list[probe.Capability] = []
    with caplog.at_level(logging.WARNING):
        assert server._tracker(wanted, known) == taken
    assert [one.name for one in known] == asked
    lacks = wanted not in ("auto", taken)
    assert ("soft-dirty: this kernel lacks it (asked the kernel); shadow is used" in caplog.text) == lacks
