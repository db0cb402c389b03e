"""A container's files on disk: spec.json, state.json, exit.json, and the lock of its directory. Standard library only
(the monitor uses it).

    temp in the same directory -> fsync -> rename -> fsync of the directory

A reader therefore sees the old file or the new one, also after a power cut. See docs/formats.md for what the files
hold.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from agent import atomic
from agent.engine import disk
from agent.engine.spec import ContainerSpec
from agent.errors import AlreadyExists, NotFound, StorageError
from agent.linux import mounts, remove


@dataclass(frozen=True, kw_only=True)
class Record:
    """state.json: what of a container is not in its spec. pid 0: never started, or known to have ended."""

    epoch: int = 0
    pid: int = 0
    start_ticks: int = 0  # field 22 of /proc/PID/stat: with the pid, one process and no other until the next boot
    started_unix_ns: int = 0
    migration_id: str = ""  # the move under way, or ""
    role: str = ""  # "source", "target" or ""
    paused: bool = False  # somebody said `pause`; true only of tasks that are frozen
    stopped: bool = False  # somebody ended it: its restart policy does not start it again
    restarts: int = 0  # by its policy, since somebody started it


@dataclass(frozen=True, kw_only=True)
class ExitStatus:
    """exit.json. exit_code 128+n: killed by signal n."""

    exit_code: int
    finished_unix_ns: int
    error: str = ""
    oom_kills: int = 0


SYNCING = 8  # threads that wait for the disk
INTENDED = "spec-intended.json"
UNFINISHED = "unfinished"  # in a container's directory while it is being made
UNTIL_BOOT = "until-boot"  # what it becomes where nothing was synced: what another boot finds of such a container goes
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")

_Parsed = TypeVar("_Parsed", Record, ExitStatus)


def write_exit(path: Path, status: ExitStatus, *, durable: bool = True) -> None:
    """Not `durable`: of a container that is removed at its exit."""
    atomic.write(path, json.dumps(vars(status)), durable=durable)


def read_exit(path: Path) -> ExitStatus | None:
    """None without the file. Raises StorageError when it is not what write_exit wrote."""
    raw = _read_json(path)
    return None if raw is None else _parse(path, ExitStatus, raw)


def _text(record: Record) -> str:
    return json.dumps(vars(record))


class _Lock:
    """Of one container. `depth`: how often its thread holds it."""

    def __init__(self) -> None:
        self.turn = threading.RLock()
        self.depth = 0


class Store:
    """The directory of all containers of a host; one instance an agent."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._guard = threading.Lock()
        self._adding = threading.Lock()
        self._syncing = ThreadPoolExecutor(SYNCING, "sync")
        self._locks: dict[str, _Lock] = {}
        self._specs: dict[
            str, tuple[tuple[int, int], ContainerSpec]
        ] = {}  # with inode and time of the file they came from

    def directory(self, container_id: str) -> Path:
        return self.root / container_id

    def ids(self) -> list[str]:
        """Every container: a directory with a spec."""
        try:
            return sorted(entry.name for entry in self.root.iterdir() if (entry / "spec.json").exists())
        except FileNotFoundError:
            return []

    def add(self, spec: ContainerSpec, record: Record) -> Path:
        """Make the directory and write both files, the spec last: it is what makes the container exist. It is `unfinished`
        until finish() says that its layer is there too, and on disk only after begin_sync(). Raises AlreadyExists.
        """
        directory = self.directory(spec.id)
        with self._adding:  # of two for one id at once the second must see the first's spec, not clear it away
            if (directory / "spec.json").exists():
                hint = f"remove it first: migrate rm {spec.name}"
                raise AlreadyExists(f"container {spec.id} exists already", hint=hint)
            self._remove(directory)  # what a creation left that never came to its spec
            directory.mkdir(mode=0o700, parents=True)  # nobody but root: a layer's set-uid programs are root's on disk
            atomic.write(directory / UNFINISHED, _BOOT_ID.read_text(), durable=False)
            atomic.write(directory / "state.json", _text(record), durable=False)
            atomic.write(directory / "spec.json", spec.to_json(), durable=False)
        return directory

    def begin_sync(self, container_id: str, names: Sequence[str] = ("state.json", "spec.json")) -> Callable[[], None]:
        """Bring what add() wrote to the disk; what a power cut leaves of it before is marked as unfinished. What is returned waits for it
        and raises OSError. Both files at once: a journal takes them in one go, one after the other cost three times as much.
        """
        begun = [self._syncing.submit(atomic.sync_file, self.directory(container_id) / name) for name in names]

        def wait() -> None:
            for one in begun:
                one.result()

        return wait

    def finish(self, container_id: str) -> None:
        """After begin_sync(): all that a creation makes is there, durably."""
        (self.directory(container_id) / UNFINISHED).unlink()
        above = self._syncing.submit(atomic.sync_directory, self.root)
        atomic.sync_directory(self.directory(container_id))
        above.result()

    def finish_until_boot(self, container_id: str, record: Record) -> None:
        """finish() of one that is started at once and removed at its exit: nothing goes to the disk, for if the host ends first this has
        exited, and is removed, whatever a power cut left of its files.
        """
        directory = self.directory(container_id)
        atomic.write(directory / "state.json", _text(record), durable=False)
        (directory / UNFINISHED).rename(directory / UNTIL_BOOT)

    def begin_finish(self, container_id: str, record: Record, before: Callable[[], None]) -> Callable[[], None]:
        """finish() of one that is started at once: its first record goes to the disk with this one in its place. Goes on meanwhile; what is
        returned waits for its end and raises OSError. `before`: of begin_sync() for the spec.
        """

        def work() -> None:
            atomic.write(self.directory(container_id) / "state.json", _text(record), sync_name=False)
            before()  # it was begun before this, so that it has a thread
            (self.directory(container_id) / UNFINISHED).unlink()
            for directory in (
                self.directory(container_id),
                self.root,
            ):  # one after the other: this is one of the threads itself
                atomic.sync_directory(directory)

        return self._syncing.submit(work).result

    def unfinished(self, container_id: str) -> bool:
        """Whether its creation has not come to its end; after the agent's start: never will."""
        directory = self.directory(container_id)
        if (directory / UNFINISHED).exists() or not (directory / "spec.json").exists():
            return True
        try:
            if (directory / UNTIL_BOOT).read_text() == _BOOT_ID.read_text():
                return False
            return not self.record(container_id).migration_id  # of a move others decide
        except FileNotFoundError:
            return False
        except StorageError:
            return True

    def has_spec(self, container_id: str) -> bool:
        """Whether there is one that can be read: a power cut in a creation leaves pieces."""
        try:
            self.spec(container_id)
        except (NotFound, StorageError):
            return False
        return True

    def spec(self, container_id: str) -> ContainerSpec:
        path = self.directory(container_id) / "spec.json"
        try:
            status = path.stat()
            version = status.st_ino, status.st_mtime_ns  # it is only ever replaced whole
            known = self._specs.get(container_id)
            if known is None or known[0] != version:  # to read one takes longer than anything else of an inspect
                self._specs[container_id] = known = version, ContainerSpec.from_json(path.read_text())
            return known[1]
        except FileNotFoundError:
            self._specs.pop(container_id, None)
            raise NotFound(f"no container {container_id} on this host", hint="list them: migrate ps --all") from None
        except (KeyError, TypeError, ValueError) as exc:
            raise StorageError(f"{path} is not a container spec: {exc!r}") from exc

    def specs(self) -> list[ContainerSpec]:
        """Of every container that is there."""
        found = []
        for container_id in self.ids():
            with contextlib.suppress(NotFound):  # removed while we looked
                found.append(self.spec(container_id))
        return found

    def write_spec(self, spec: ContainerSpec) -> None:
        """Of a container that exists."""
        atomic.write(self.directory(spec.id) / "spec.json", spec.to_json())

    def intend(self, spec: ContainerSpec) -> None:
        """The kernel is about to be told what this spec says; write_spec() and intend_nothing() follow."""
        atomic.write(self.directory(spec.id) / INTENDED, spec.to_json())

    def intended(self, container_id: str) -> ContainerSpec | None:
        """What the kernel may have been told in part, after a crash. Raises StorageError."""
        path = self.directory(container_id) / INTENDED
        try:
            return ContainerSpec.from_json(path.read_text())
        except FileNotFoundError:
            return None
        except (KeyError, TypeError, ValueError) as exc:
            raise StorageError(f"{path} is not a container spec: {exc!r}") from exc

    def intend_nothing(self, container_id: str) -> None:
        (self.directory(container_id) / INTENDED).unlink(missing_ok=True)

    def record(self, container_id: str) -> Record:
        path = self.directory(container_id) / "state.json"
        raw = _read_json(path)
        if raw is None:
            raise NotFound(f"no container {container_id} on this host", hint="list them: migrate ps --all")
        return _parse(path, Record, raw)

    def write_record(self, container_id: str, record: Record) -> None:
        atomic.write(self.directory(container_id) / "state.json", _text(record))

    def begin_record(self, container_id: str, record: Record) -> Callable[[], None]:
        """write_record(), which goes on meanwhile; what is returned waits for its end and raises OSError."""
        return self._syncing.submit(self.write_record, container_id, record).result

    def exit_status(self, container_id: str) -> ExitStatus | None:
        return read_exit(self.exit_path(container_id))

    def exit_path(self, container_id: str) -> Path:
        return self.directory(container_id) / "exit.json"

    def forget_exit(self, container_id: str) -> None:
        try:
            self.exit_path(container_id).unlink()
        except FileNotFoundError:
            return
        atomic.sync_directory(self.directory(container_id))

    def delete(self, container_id: str) -> None:
        """Remove the directory. The spec goes first: a half-removed container no longer exists. No error
        without one.
        """
        directory = self.directory(container_id)
        (directory / "spec.json").unlink(missing_ok=True)
        self._remove(directory)
        self._specs.pop(container_id, None)
        atomic.sync_directory(self.root)
        self._forget_lock(container_id)

    def _forget_lock(self, container_id: str) -> None:
        """Of a container that is no more. Who waits for the lock still has it, and finds no directory then."""
        with self._guard:
            self._locks.pop(container_id, None)

    @staticmethod
    def _remove(directory: Path) -> None:
        try:
            mounts.unmount_all(
                directory / "rootfs"
            )  # of one whose end nobody saw: what is below is its layer, not what goes
            disk.detach(directory)
            remove.tree(directory)
        except FileNotFoundError:
            pass  # there is none, or somebody was faster
        except OSError as exc:
            raise StorageError(f"cannot remove {directory}: {exc.strerror} ({exc.filename})") from exc

    @contextmanager
    def lock(self, container_id: str) -> Iterator[None]:
        """Hold the container: against other threads, and by flock on its directory against another agent. Re-entrant
        in a thread.

        Raises NotFound where the container has no directory (any more).
        """
        with self._guard:
            lock = self._locks.setdefault(container_id, _Lock())
        with lock.turn:
            if lock.depth:
                lock.depth += 1
                try:
                    yield
                finally:
                    lock.depth -= 1
                return
            try:
                fd = self._flock(container_id)
            except NotFound:
                self._forget_lock(container_id)
                raise
            lock.depth = 1
            try:
                yield
            finally:
                lock.depth = 0
                os.close(fd)

    def _flock(self, container_id: str) -> int:
        directory = self.directory(container_id)
        try:
            fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise NotFound(f"no container {container_id} on this host", hint="list them: migrate ps --all") from None
        fcntl.flock(fd, fcntl.LOCK_EX)
        if os.fstat(fd).st_nlink == 0:  # removed while we waited
            os.close(fd)
            raise NotFound(f"container {container_id} has just been removed")
        return fd


def _read_json(path: Path) -> dict[str, Any] | None:
    try:
        raw = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as exc:
        raise StorageError(f"cannot read {path}: {exc}") from exc
    if not isinstance(raw, dict):
        raise StorageError(f"{path} holds no JSON object")
    return raw


def _parse(path: Path, kind: type[_Parsed], raw: dict[str, Any]) -> _Parsed:
    try:
        return kind(**raw)
    except TypeError as exc:
        raise StorageError(f"{path}: {exc}") from exc
