"""Logs of moves that were undone."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.config import AgentConfig
from agent.errors import CriuError, WrongState
from agent.handover import kept_logs
from agent.handover.criu_error import criu_error
from agent.handover.record import Move, MoveRecord

pytestmark = pytest.mark.unit


def begun(config: AgentConfig, migration_id: str) -> Move:
    move = Move(config.moves_dir, migration_id, "source")
    move.begin(MoveRecord(migration_id=migration_id, container_id="c1", role="source", epoch=1))
    move.images.mkdir(parents=True)
    return move


def test_the_ends_of_logs_stay_when_the_move_is_gone(tmp_path: Path) -> None:
    """Under way they are read where they are; afterwards from what was kept; an empty one is no log."""
    config = AgentConfig(host="h", state_dir=tmp_path / "state", run_dir=tmp_path / "run")
    move = begun(config, "4f2a")
    (move.images / "dump.log").write_bytes(b"x" * kept_logs.TAIL_BYTES + b"the end")
    (move.directory / "sender.log").write_text("sent\n")
    (move.directory / "ssh.log").write_text("")
    under_way = kept_logs.of(config, "4f2a")
    kept_logs.keep(config.move_logs_dir, move, "source")
    move.forget()
    found = kept_logs.of(config, "4f2a")
    assert found == under_way
    assert sorted(found) == ["dump.log", "sender.log"]
    assert len(found["dump.log"]) == kept_logs.TAIL_BYTES
    assert found["dump.log"].endswith(b"the end")
    assert kept_logs.of(config, "ffff") == {}


def test_only_the_newest_moves_are_kept(tmp_path: Path) -> None:
    """The oldest go; an id that would be a path is refused."""
    config = AgentConfig(host="h", state_dir=tmp_path / "state", run_dir=tmp_path / "run")
    for number in range(kept_logs.MOVES_KEPT + 3):
        move = begun(config, f"{number:04x}")
        (move.directory / "sender.log").write_text("sent\n")
        kept_logs.keep(config.move_logs_dir, move, "source")
        move.forget()
        os.utime(config.move_logs_dir / f"{number:04x}.source", (number, number))
    assert len(list(config.move_logs_dir.iterdir())) == kept_logs.MOVES_KEPT
    assert kept_logs.of(config, "0000") == {}
    assert kept_logs.of(config, f"{kept_logs.MOVES_KEPT + 2:04x}")
    with pytest.raises(WrongState):
        kept_logs.of(config, "../../etc")


def test_a_move_that_never_began_leaves_no_logs(tmp_path: Path) -> None:
    """An undo of nothing keeps nothing, and is no error."""
    config = AgentConfig(host="h", state_dir=tmp_path / "state", run_dir=tmp_path / "run")
    kept_logs.keep(config.move_logs_dir, Move(config.moves_dir, "4f2a", "target"), "target")
    assert not config.move_logs_dir.exists()


def test_the_error_of_a_dump_has_cause_remedy_and_context(tmp_path: Path) -> None:
    """What the user reads is the line of CRIU with its meaning, and what to do."""
    log = tmp_path / "dump.log"
    log.write_text(
        "(00.1) Warn  (criu/image.c:134): before\n"
        "(00.2) Error (criu/files-reg.c:1031): Can't dump ghost file /tmp/x of 300000000 size, increase limit\n"
        "(00.3) Error (criu/cr-dump.c:2111): Dumping FAILED.\n"
    )
    error = criu_error("dump", log, CriuError("the monitor says: CRIU refused the dump"))
    assert error.message.startswith(
        "dump failed: Can't dump ghost file /tmp/x of 300000000 size, increase limit (/tmp/x was"
    )
    assert "close or truncate it" in error.hint
    assert "before" in error.detail


def test_where_the_monitor_refused_criu_its_reason_is_the_error(tmp_path: Path) -> None:
    """CRIU's words of a CRIU that was killed are no cause; the monitor's are, with what is known of them."""
    log = tmp_path / "dump.log"
    log.write_text("(00.2) Error (criu/cr-dump.c:1): something that follows from it\n")
    error = criu_error("dump", log, CriuError("dump: CRIU died in the middle of the dump"))
    assert "something that follows" not in error.message
    assert "something that follows" in error.detail
    assert "dmesg" in error.hint
    unknown = criu_error("restore", tmp_path / "none.log", CriuError("restore: pre-resume: no such thing"))
    assert (unknown.message, unknown.hint) == ("restore failed: restore: pre-resume: no such thing", "")
