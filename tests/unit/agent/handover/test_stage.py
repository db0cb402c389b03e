"""How much memory a move asks for, and what has come with a container that is not in its tasks yet."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from agent.errors import StorageError
from agent.handover import stage
from agent.handover.record import Move, MoveRecord
from agent.memory import areas

pytestmark = pytest.mark.unit


def arrived(moves: Path, migration: str, container: str, role: str, size: int) -> Move:
    """A move on this host with `size` bytes of memory in its stage, which is no tmpfs here."""
    move = Move(moves, migration, role)
    move.begin(MoveRecord(migration_id=migration, container_id=container, role=role, epoch=1))
    move.memory.mkdir(parents=True)
    (move.memory / "1.mem").write_bytes(bytes(size))
    (move.memory / "1.ranges").write_bytes(bytes(4096))
    return move


def test_what_has_come_and_is_not_cleared(tmp_path: Path) -> None:
    """Of this container, to this host; nothing once the stage is gone, and nothing of other moves."""
    assert stage.arriving_bytes(tmp_path, "c1") == 0
    move = arrived(tmp_path, "a1", "c1", "target", 1 << 20)
    arrived(tmp_path, "a2", "c2", "target", 2 << 20)
    arrived(tmp_path, "a3", "c1", "source", 4 << 20)
    assert stage.arriving_bytes(tmp_path, "c1") == 1 << 20
    move.forget()
    assert stage.arriving_bytes(tmp_path, "c1") == 0


def test_memory_is_asked_for_twice(tmp_path: Path) -> None:
    """Nothing is mounted for a container whose memory is there once, but not once more for its tasks."""
    move = Move(tmp_path, "a1", "target")
    with pytest.raises(StorageError, match=r"the move needs \d+ MiB of memory on this host, \d+ MiB are available"):
        stage.mount(move, 1 << 20, beside_bytes=1 << 50)
    assert not move.stage.exists()


def test_resident_memory() -> None:
    """What this process has of its own is counted, in bytes; of one that is gone, nothing."""
    kept = bytearray(os.urandom(8 << 20))
    private, _ = areas.resident_bytes(os.getpid())
    assert private >= len(kept)
    gone = subprocess.Popen(["true"])
    gone.wait()
    assert areas.resident_bytes(gone.pid) == (0, 0)
