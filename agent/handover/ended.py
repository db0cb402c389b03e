"""What a host remembers of moves that are over: the last word on each, on disk, so that a call that comes late is refused.

    /var/lib/migrate/moves/MIGRATION.ROLE.json

Written before an undo has any effect and before a commit kills anything, so it is also the decision: after a commit nothing is undone,
after an undo nothing committed. `done` says that the effect is there too. Forgotten after KEEP_S; nothing on its way is that slow.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from agent import atomic
from agent.errors import StorageError, WrongState
from agent.handover.record import check_id

KEEP_S = 7 * 24 * 3600

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Ended:
    """One move, one role. `epoch`: from before the pivot, as in the calls. `marks`: what Finish answered."""

    migration_id: str
    role: str
    container_id: str
    epoch: int
    committed: bool
    ended_unix_ns: int
    done: bool = False
    marks: list[dict[str, Any]] = field(default_factory=list)

    @property
    def known_epoch(self) -> int:
        """The container's, as far as this move has told."""
        return self.epoch + 1 if self.committed else self.epoch


class EndedMoves:
    """All of a host; one instance an agent, of both roles. Thread-safe."""

    def __init__(self, directory: Path) -> None:
        """Reads what is there and forgets what is old. Raises StorageError."""
        self._directory = directory
        self._guard = threading.Lock()
        self._known: dict[tuple[str, str], Ended] = {}
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            for path in directory.glob("*.json"):
                self._read(path)
        except OSError as exc:
            raise StorageError(f"cannot read {directory}: {exc}") from exc
        with self._guard:
            self._prune()

    def get(self, migration_id: str, role: str) -> Ended | None:
        with self._guard:
            return self._known.get((migration_id, role))

    def refuse(self, migration_id: str, role: str) -> None:
        """Raises WrongState when the move is over here: every call but Finish asks this first, and again before it acts."""
        if (ended := self.get(migration_id, role)) is not None:
            how = "committed" if ended.committed else "undone"
            raise WrongState(
                f"migration {migration_id} is over on this host: it was {how}", hint="start a new move of the container"
            )

    def known_epoch(self, container_id: str) -> int:
        """0 when no move tells."""
        with self._guard:
            return max((e.known_epoch for e in self._known.values() if e.container_id == container_id), default=0)

    def decide(
        self,
        migration_id: str,
        role: str,
        container_id: str,
        epoch: int,
        *,
        committed: bool,
        marks: Sequence[dict[str, Any]] = (),
    ) -> Ended:
        """From now on, and durably, the move is over here; its effect comes next. Repeated: what was decided.

        Raises WrongState when it was decided the other way, StorageError.
        """
        check_id(migration_id)
        with self._guard:
            ended = self._known.get((migration_id, role))
            if ended is None:
                ended = Ended(
                    migration_id=migration_id,
                    role=role,
                    container_id=container_id,
                    epoch=epoch,
                    committed=committed,
                    ended_unix_ns=time.time_ns(),
                    marks=list(marks),
                )
                self._write(ended)
                self._prune()
            if ended.committed != committed:
                how, wanted = ("committed", "undone") if ended.committed else ("undone", "committed")
                raise WrongState(
                    f"migration {migration_id} was {how} on this host: it cannot be {wanted}",
                    hint=f"see which copy is the right one: migrate repair {migration_id} --dry-run",
                )
            return ended

    def done(self, ended: Ended, marks: list[dict[str, Any]]) -> None:
        """Everything that `ended` decided has happened."""
        with self._guard:
            self._write(dataclasses.replace(ended, done=True, marks=marks))

    # ------------------------------------------------------------ parts; callers hold the guard

    def _path(self, migration_id: str, role: str) -> Path:
        return self._directory / f"{migration_id}.{role}.json"

    def _write(self, ended: Ended) -> None:
        try:
            atomic.write(self._path(ended.migration_id, ended.role), json.dumps(dataclasses.asdict(ended)))
        except OSError as exc:
            raise StorageError(f"cannot remember the end of migration {ended.migration_id}: {exc}") from exc
        self._known[ended.migration_id, ended.role] = ended

    def _read(self, path: Path) -> None:
        try:
            ended = Ended(**json.loads(path.read_text()))
        except (TypeError, ValueError) as exc:
            _log.error("%s is damaged and left alone: %s", path, exc)
            return
        self._known[ended.migration_id, ended.role] = ended

    def _prune(self) -> None:
        oldest = time.time_ns() - KEEP_S * 10**9
        for key in [key for key, ended in self._known.items() if ended.ended_unix_ns < oldest]:
            del self._known[key]
            self._path(*key).unlink(missing_ok=True)
