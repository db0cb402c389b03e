"""The volumes of a host: files that outlive containers, one directory each.

    volumes/NAME/volume.json   what it is; without it the volume does not exist
    volumes/NAME/data/         its files; ids on disk are the containers' own (0 = root)
    volumes/NAME/filling       there while data is being filled from an image (fill.py)

Who uses a volume is not kept: the specs of the containers say it. A volume that has come with a move belongs to that move until it
is committed, and one that has gone with a move is marked before its container is forgotten, so that whatever dies in between
never leaves a second copy that somebody believes in.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from agent import atomic
from agent.engine.spec import ContainerSpec, from_plain
from agent.errors import AlreadyExists, InvalidArgument, NotFound, StorageError, WrongState
from agent.linux import remove

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,254}")
Users = Callable[[], Iterable[ContainerSpec]]


@dataclass(frozen=True, kw_only=True)
class Volume:
    """`shared`: the directory that is its data, the same file system on every host; "" = the data is here. `migration_id`: it has
    come with that move, or gone with it, and nobody else may have it.
    """

    name: str
    labels: dict[str, str] = field(default_factory=dict)
    created_unix_ns: int = 0
    anonymous: bool = False
    shared: str = ""
    migration_id: str = ""


class Volumes:
    """One instance an agent. `users`: the specs of all containers of this host."""

    def __init__(self, root: Path, users: Users) -> None:
        self._root, self._users = root, users
        self._lock = threading.RLock()

    # ------------------------------------------------------------ what there is

    def all(self) -> list[Volume]:
        """By name."""
        try:
            names = sorted(entry.name for entry in self._root.iterdir() if (entry / "volume.json").exists())
        except FileNotFoundError:
            return []
        return [self.get(name) for name in names]

    def get(self, name: str) -> Volume:
        """Raises NotFound, StorageError."""
        path = self._root / checked(name) / "volume.json"
        try:
            return from_plain(Volume, json.loads(path.read_text()))
        except FileNotFoundError:
            raise NotFound(f"no volume {name} on this host", hint="list them: migrate volume ls") from None
        except (KeyError, TypeError, ValueError) as exc:
            raise StorageError(f"{path} is damaged: {exc!r}") from exc

    def path(self, volume: Volume) -> Path:
        """Where its files are."""
        return Path(volume.shared) if volume.shared else self._root / volume.name / "data"

    def places(self, name: str) -> tuple[Path, Path]:
        """(its files, the marker that they are being filled). Raises NotFound."""
        return self.path(self.get(name)), self._root / name / "filling"

    def used_by(self, name: str) -> list[ContainerSpec]:
        """The containers of this host that have it among their mounts."""
        return [spec for spec in self._users() if name in names(spec)]

    def of(self, spec: ContainerSpec) -> list[Volume]:
        """Those of a container, in the order of its mounts, each once."""
        return [self.get(name) for name in names(spec)]

    # ------------------------------------------------------------ verbs

    def create(
        self, name: str, *, labels: Mapping[str, str] | None = None, shared: str = "", anonymous: bool = False
    ) -> Volume:
        """One that is there already is returned. Raises AlreadyExists when it is another one: shared from elsewhere."""
        checked(name)
        if shared and (not shared.startswith("/") or ".." in Path(shared).parts):
            raise InvalidArgument(f"a shared volume takes an absolute path, not {shared!r}")
        if shared and not Path(shared).is_dir():
            raise InvalidArgument(
                f"{shared} is no directory on this host: a shared volume needs the same file system mounted there on every host"
            )
        with self._lock:
            try:
                known = self.get(name)
            except NotFound:
                return self._make(
                    Volume(
                        name=name,
                        labels=dict(labels or {}),
                        created_unix_ns=time.time_ns(),
                        anonymous=anonymous,
                        shared=shared,
                    )
                )
            self._refuse_moving(known)
            if shared and known.shared != shared:
                raise AlreadyExists(
                    f"volume {name} exists already, "
                    + (f"shared from {known.shared}" if known.shared else "not shared"),
                    hint=f"choose another name, or remove it: migrate volume rm {name}",
                )
            return known

    def refuse_moving(self, spec: ContainerSpec, move_of: Callable[[ContainerSpec], str]) -> None:
        """Raises WrongState where a volume of a new container belongs to one that is being moved: it would be on two hosts."""
        for name in names(spec):
            for user in self.used_by(name):
                with contextlib.suppress(NotFound):  # it has just gone
                    if user.id != spec.id and (move := move_of(user)) and not self.get(name).shared:
                        raise WrongState(
                            f"volume {name} is used by {user.name}, which is being moved: {move}",
                            hint=f"wait for the move: migrate watch {move}",
                        )

    def ensure(self, spec: ContainerSpec) -> list[str]:
        """Make those volumes of a container that are not there. Returns the names of the new ones.

        The spec is in the store already, so nobody removes them. Raises WrongState while one takes part in a move.
        """
        made: list[str] = []
        anonymous = {mount.source for mount in spec.mounts if mount.kind == "volume" and mount.anonymous}
        with self._lock:
            for name in names(spec):
                try:
                    self._refuse_moving(self.get(name))
                except NotFound:
                    self.create(name, anonymous=name in anonymous)
                    made.append(name)
        return made

    def remove(self, name: str, *, force: bool = False) -> None:
        """Raises NotFound, with `force` not; WrongState naming the containers that use it."""
        with self._lock:
            try:
                volume = self.get(name)
            except NotFound:
                if force:
                    return
                raise
            if users := self.used_by(name):
                raise WrongState(
                    f"volume {name} is in use by {', '.join(user.name for user in users)}",
                    hint=f"remove that container first: migrate rm {users[0].name}",
                )
            self._refuse_moving(volume)
            self._delete(name)

    def remove_anonymous(self, spec: ContainerSpec) -> None:
        """Those of a container that has just been removed."""
        with self._lock:
            for mount in spec.mounts:
                if mount.kind == "volume" and mount.anonymous and not self.used_by(mount.source):
                    self._delete(mount.source)

    def remove_new(self, made: Iterable[str]) -> None:
        """What `ensure` made for a container that then did not come to be."""
        with self._lock:
            for name in made:
                if not self.used_by(name):
                    self._delete(name)

    def unused(self, *, named: bool) -> list[Volume]:
        """What prune removes: anonymous ones, with `named` the named ones too."""
        return [
            each
            for each in self.all()
            if (named or each.anonymous) and not each.migration_id and not self.used_by(each.name)
        ]

    # ------------------------------------------------------------ moves

    def why_not_arrive(self, volume: Volume) -> str:
        """What keeps a volume from coming here with a move; "" where nothing does."""
        if volume.shared and not Path(volume.shared).is_dir():
            return f"volume {volume.name} is shared, and its directory {volume.shared} is not on this host"
        try:
            known = self.get(volume.name)
        except NotFound:
            return ""
        if known.shared != volume.shared:
            return f"another volume {volume.name} is on this host already"
        if volume.shared:
            return ""
        if users := self.used_by(volume.name):
            return f"another volume {volume.name} is on this host already, used by {users[0].name}"
        if known.migration_id:
            return f"a volume {volume.name} comes to this host with move {known.migration_id}"
        if any(self.path(known).iterdir()):
            return f"another volume {volume.name} is on this host already, with files in it"
        return ""  # empty and nobody's: it gives way

    def arrive(self, volumes: Iterable[Volume], migration_id: str) -> None:
        """Make place for what comes with a move. Idempotent. Raises AlreadyExists."""
        with self._lock:
            for volume in volumes:
                try:
                    if self.get(volume.name).migration_id == migration_id:
                        continue
                except NotFound:
                    pass
                if reason := self.why_not_arrive(volume):
                    raise AlreadyExists(reason, hint=f"migrate volume inspect {volume.name}")
                if volume.shared:
                    self.create(volume.name, labels=volume.labels, shared=volume.shared)
                    continue
                self._delete(volume.name)
                self._make(dataclasses.replace(volume, migration_id=migration_id))

    def settle(self, migration_id: str) -> None:
        """The move is committed: what came with it is this host's. Idempotent."""
        with self._lock:
            for volume in self._of_move(migration_id):
                self._write(dataclasses.replace(volume, migration_id=""))

    def leave(self, spec: ContainerSpec, migration_id: str) -> None:
        """The move is committed: what its container has here is nobody's any more. Another container's volume stays. Idempotent."""
        with self._lock:
            for volume in self.of(spec):
                others = [user for user in self.used_by(volume.name) if user.id != spec.id]
                if not volume.shared and not others:
                    self._write(dataclasses.replace(volume, migration_id=migration_id))

    def drop(self, migration_id: str) -> None:
        """Remove what belongs to that move alone: on the source after its commit, on the target after its undo. Idempotent."""
        with self._lock:
            for volume in self._of_move(migration_id):
                self._delete(volume.name)

    # ------------------------------------------------------------ parts

    def _of_move(self, migration_id: str) -> list[Volume]:
        return [each for each in self.all() if each.migration_id and each.migration_id == migration_id]

    @staticmethod
    def _refuse_moving(volume: Volume) -> None:
        if volume.migration_id:
            raise WrongState(
                f"volume {volume.name} takes part in move {volume.migration_id}",
                hint=f"wait for the move: migrate watch {volume.migration_id}",
            )

    def _make(self, volume: Volume) -> Volume:
        directory = self._root / volume.name
        try:
            self._root.mkdir(mode=0o700, exist_ok=True)
            if directory.exists():  # what never came to its volume.json
                remove.tree(directory)
            directory.mkdir(mode=0o700)
            if not volume.shared:
                (directory / "data").mkdir()
                (directory / "data").chmod(0o755)
            self._write(volume)
            atomic.sync_directory(self._root)
        except OSError as exc:
            raise StorageError(f"cannot make volume {volume.name}: {exc}") from exc
        return volume

    def _write(self, volume: Volume) -> None:
        text = json.dumps(dataclasses.asdict(volume), sort_keys=True)
        atomic.write(self._root / volume.name / "volume.json", text)

    def _delete(self, name: str) -> None:
        """The record goes first: a half-removed volume no longer exists."""
        directory = self._root / name
        try:
            (directory / "volume.json").unlink(missing_ok=True)
            if directory.exists():
                remove.tree(directory)
                atomic.sync_directory(self._root)
        except OSError as exc:
            raise StorageError(f"cannot remove volume {name}: {exc.strerror} ({exc.filename})") from exc


def checked(name: str) -> str:
    """`name`, which becomes a directory's. Raises InvalidArgument."""
    if not _NAME.fullmatch(name):
        raise InvalidArgument(
            f"{name!r} is no name of a volume", hint="letters, digits, _ . and -, beginning with a letter or a digit"
        )
    return name


def names(spec: ContainerSpec) -> list[str]:
    """Of the volumes among its mounts, each once."""
    return list(dict.fromkeys(mount.source for mount in spec.mounts if mount.kind == "volume"))
