"""A hook's command: its status and output, a coordinator that goes away meanwhile, a power cut, a time limit."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import pytest

from migrate.coordinator.schedules import hook as hooks
from migrate.coordinator.schedules.hook import Hook

pytestmark = pytest.mark.unit


class GoneAwayError(Exception):
    """The coordinator ends."""


def wait() -> None:
    time.sleep(0.02)


def gone_away() -> None:
    time.sleep(0.02)
    raise GoneAwayError


def hook(directory: Path, command: str, timeout_s: float = 60.0) -> Hook:
    return Hook(directory / "run", command, {"MIGRATE_HOST": "host1"}, timeout_s)


def test_status_and_output_come_back(tmp_path: Path) -> None:
    """Both streams, in order; a signal as a shell says it; asked again, the same, and nothing runs twice."""
    ended = hook(tmp_path, f"echo $MIGRATE_HOST; echo oops >&2; echo x >> {tmp_path}/count; exit 3").run(wait)
    assert (ended.status, ended.output) == (3, "host1\noops\n")
    assert hook(tmp_path, "exit 0").run(wait).status == 3
    assert (tmp_path / "count").read_text() == "x\n"
    assert Hook(tmp_path / "other", "kill -9 $$", {}, 60.0).run(wait).status == hooks.KILLED


def test_who_comes_back_finds_it_running(tmp_path: Path) -> None:
    """It is waited for, and not begun again."""
    command = f"echo x >> {tmp_path}/count; while [ ! -e {tmp_path}/go ]; do sleep 0.05; done; exit 4"
    for _ in range(2):
        with pytest.raises(GoneAwayError):
            hook(tmp_path, command).run(gone_away)
    (tmp_path / "go").touch()
    assert hook(tmp_path, command).run(wait).status == 4
    assert (tmp_path / "count").read_text() == "x\n"


def test_one_that_a_power_cut_ended_runs_again(tmp_path: Path) -> None:
    """Its process is gone, and it has no status."""
    command = f"echo x >> {tmp_path}/count; [ -e {tmp_path}/go ] || sleep 60"
    with pytest.raises(GoneAwayError):
        hook(tmp_path, command).run(gone_away)
    while not (tmp_path / "count").exists():
        wait()
    os.killpg(int((tmp_path / "run" / "pid").read_text()), signal.SIGKILL)
    (tmp_path / "go").touch()
    assert hook(tmp_path, command).run(wait).status == 0
    assert (tmp_path / "count").read_text() == "x\nx\n"


def test_a_time_limit_ends_all_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also what does not hear SIGTERM."""
    monkeypatch.setattr(hooks, "KILL_S", 0.3)
    ended = hook(tmp_path, "trap '' TERM; echo begun; while :; do sleep 0.05; done", timeout_s=0.2).run(wait)
    assert (ended.status, ended.output) == (hooks.TIMED_OUT, "begun\n")
    leader = int((tmp_path / "run" / "pid").read_text())
    for _ in range(200):
        try:
            os.killpg(leader, 0)
        except ProcessLookupError:
            return
        wait()
    pytest.fail("something of the hook lives on")
