"""The switch that a restore opens: who waits too long is told for whom."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

from agent.criu import sysctl
from agent.errors import WrongState

pytestmark = pytest.mark.unit


def test_a_switch_that_another_restore_holds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the limit the error names the switch, the time and what to type; nothing was changed."""
    monkeypatch.setattr(sysctl, "TURN_LIMIT_S", 0.05)
    switch = tmp_path / "unprivileged_userfaultfd"
    switch.write_text("0\n")
    with switch.open() as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(WrongState, match=rf"held {switch} for 0.05 s.*fuser"):
            sysctl.UserfaultWindow(switch).open()
    assert switch.read_text() == "0\n"
    window = sysctl.UserfaultWindow(switch)
    window.open()
    assert switch.read_text() == "1"
    window.close()
    assert switch.read_text() == "0"
