"""Logs of moves that were undone: CRIU's, the transfer processes', ssh's. Their directory goes with the move; why it failed stays.

STATE_DIR/move-logs/MIGRATION.ROLE/dump.log ...     the end of each
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

from agent.config import AgentConfig
from agent.handover.record import Move, check_id

TAIL_BYTES = 64 << 10  # of each log: CRIU's has errors and warnings only
MOVES_KEPT = 50


def keep(top: Path, move: Move, role: str) -> None:
    """Before the move's directory goes. What cannot be kept is not: an undo must not fail for a log."""
    with contextlib.suppress(OSError):
        found = [path for path in _logs(move) if path.stat().st_size]
        if not found:
            return
        place = top / f"{move.migration_id}.{role}"
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        for path in found:
            (place / path.name).write_bytes(_tail(path))
        _sweep(top)


def of(config: AgentConfig, migration_id: str) -> dict[str, bytes]:
    """By name, the ends of a move's logs on this host: of one that was undone what is kept, of one under way what there is.

    Raises WrongState for what is no id.
    """
    check_id(migration_id)
    found: dict[str, bytes] = {}
    with contextlib.suppress(OSError):  # it is being undone right now, or swept
        for role in ("source", "target"):
            found |= {path.name: _tail(path) for path in _logs(Move(config.moves_dir, migration_id, role))}
        for path in sorted(config.move_logs_dir.glob(f"{migration_id}.*/*.log")):
            found[path.name] = path.read_bytes()
    return {name: tail for name, tail in found.items() if tail}


def _logs(move: Move) -> Iterator[Path]:
    for directory in (move.images, move.directory):
        if directory.is_dir():
            yield from sorted(directory.glob("*.log"))


def _tail(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - TAIL_BYTES))
        return file.read()


def _sweep(top: Path) -> None:
    places = sorted(top.iterdir(), key=lambda path: path.stat().st_mtime)
    for place in places[:-MOVES_KEPT]:
        shutil.rmtree(place, ignore_errors=True)
