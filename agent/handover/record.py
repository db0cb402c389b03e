"""What a host knows of its part in a move, on its /run: enough for an agent that was restarted to go on or to undo.

After a reboot nothing of it is left, and nothing of the tasks either. What is known of a move that is over: ended.py.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from agent import atomic
from agent.errors import NotFound, StaleEpoch, StorageError, WrongState
from agent.linux import remove


@dataclass(frozen=True, kw_only=True)
class MoveRecord:
    """`role`: source or target. `committed`: the target was told to resume; `resumed`: with these marks it did.

    `peer_host`: the other side's name, for people. `rehearsal`: it is never committed. `brought`: a rehearsal's image layers, which go.
    `connections`: of the tunnel; known to the target.
    """

    migration_id: str
    container_id: str
    role: str
    epoch: int
    lazy: bool = False
    committed: bool = False
    restored: bool = False
    resumed: list[dict[str, Any]] = field(default_factory=list)
    receiver_pid: int = 0
    receiver_ticks: int = 0
    peer_host: str = ""
    rehearsal: bool = False
    brought: list[str] = field(default_factory=list)
    connections: int = 1


def check_id(migration_id: str) -> None:
    """It becomes a file's name. Raises WrongState."""
    if not migration_id or not migration_id.replace("-", "").isalnum():
        raise WrongState(f"{migration_id!r} is no id of a migration")


class Move:
    """One move's directory. `stage` is a tmpfs of its own, so that a full one hurts nobody else."""

    def __init__(self, moves_dir: Path, migration_id: str, role: str) -> None:
        check_id(migration_id)
        self.migration_id = migration_id
        self.directory = moves_dir / f"{migration_id}.{role}"  # the role: a lab's hosts never share it, a test's may
        self.stage = self.directory / "stage"
        self.images = self.stage / "images"
        self.images_link = (
            self.stage / "images.link"
        )  # to it: how CRIU is told, for 4.1 takes no directory but a link to one
        self.memory = self.stage / "memory"
        self.logs = self.stage / "logs"
        self.throttle = self.directory / "throttle.json"  # how to give the container its processor time back
        self.received = self.directory / "received.json"
        self._record = self.directory / "record.json"

    @property
    def exists(self) -> bool:
        return self._record.exists()

    def begin(self, record: MoveRecord) -> None:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.write(record)

    def read(self) -> MoveRecord:
        """Raises NotFound: this host has no part in that move (any more)."""
        try:
            return MoveRecord(**json.loads(self._record.read_text()))
        except FileNotFoundError:
            raise NotFound(
                f"this host has no part in migration {self.migration_id}", code="migration.not_found"
            ) from None
        except (TypeError, ValueError) as exc:
            raise StorageError(f"{self._record} is damaged: {exc}") from exc

    def write(self, record: MoveRecord) -> None:
        atomic.write(self._record, json.dumps(dataclasses.asdict(record)))

    def update(self, **changes: object) -> MoveRecord:
        record = dataclasses.replace(self.read(), **changes)  # type: ignore[arg-type]  # names are checked by replace
        self.write(record)
        return record

    def remember(self, call: str, answer: dict[str, Any]) -> None:
        """What `call` answered, for when it is repeated."""
        atomic.write(self.directory / f"{call}.answer.json", json.dumps(answer))

    def answered(self, call: str) -> dict[str, Any] | None:
        """What remember() was given; None if the call has not succeeded here yet."""
        try:
            answer: dict[str, Any] = json.loads((self.directory / f"{call}.answer.json").read_text())
        except FileNotFoundError:
            return None
        return answer

    def require(self, epoch: int) -> MoveRecord:
        """The record, unless the call is from before a pivot that this host knows of."""
        record = self.read()
        if epoch < record.epoch:
            raise StaleEpoch(f"migration {record.migration_id} has epoch {record.epoch} here, the call has {epoch}")
        return record

    def forget(self) -> None:
        """The stage must be unmounted; what is mounted all the same is not entered: it may be a container's by now."""
        with contextlib.suppress(OSError):
            remove.tree(self.directory)

    @classmethod
    def all(cls, moves_dir: Path) -> list[Self]:
        """Every move that this host has a part in."""
        found = []
        for path in sorted(moves_dir.glob("*.*")) if moves_dir.is_dir() else []:
            move = cls(moves_dir, path.stem, path.suffix[1:])
            if move.exists:
                found.append(move)
        return found
