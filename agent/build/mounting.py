"""RUN --mount made ready: each mount becomes a bind or a tmpfs of the container, and is put away after the command.

bind     of the context as it lies; of a stage or an image, or read-write: a copy, which goes with the command
cache    a directory that stays, build-cache/mounts/HASH; `locked` waits for its turn, `private` gets another one
secret   a file on the run directory (a tmpfs on every usual host), gone with the command
tmpfs    made by the container's init
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import threading
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from agent.build import copying, sources
from agent.build.instructions import SCRIPT, Execute
from agent.build.mountflag import Mount
from agent.engine.local import Bind, Local, Scratch
from agent.engine.spec import IdRange
from agent.errors import InvalidArgument, Unsupported
from agent.linux import remove

LOOK_S = 0.5


@dataclass(frozen=True, kw_only=True)
class Ready:
    """`env`: variables that secrets become; they count for nothing but this command."""

    local: Local
    env: tuple[str, ...] = ()


class CacheDirectories:
    """The directories of type=cache, and who has one alone. One an agent."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._guard = threading.Condition()
        self._alone: set[str] = set()

    def take(self, stack: ExitStack, mount: Mount, work: Path, check: Callable[[], None]) -> Path:
        """The directory of the mount's id, made if it is new. `check` is called while it waits, and may raise."""
        name = hashlib.sha256(mount.id.encode()).hexdigest()
        path = self._root / name
        if mount.sharing != "shared":
            while not self._lock(name):
                if mount.sharing == "private":
                    return _directory(work / f"cache-{os.urandom(4).hex()}", mount)
                check()
            stack.callback(self._unlock, name)
        made = _directory(path, mount)
        fd = os.open(made, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        stack.callback(os.close, fd)
        fcntl.flock(fd, fcntl.LOCK_SH)  # Cache.forget leaves it alone
        os.utime(made)  # last used
        return made

    def _lock(self, name: str) -> bool:
        with self._guard:
            if name in self._alone and not self._guard.wait_for(lambda: name not in self._alone, LOOK_S):
                return False
            self._alone.add(name)
            return True

    def _unlock(self, name: str) -> None:
        with self._guard:
            self._alone.discard(name)
            self._guard.notify_all()


def digests(mounts: tuple[Mount, ...], tree: Callable[[Mount], int]) -> dict[str, str]:
    """What counts for the key: the contents of what is bound."""
    return {
        f"mount:{mount.target}": sources.digest(tree(mount), _found(tree(mount), mount))
        for mount in mounts
        if mount.kind == "bind"
    }


def prepare(
    action: Execute,
    *,
    stack: ExitStack,
    tree: Callable[[Mount], int],
    caches: CacheDirectories,
    secrets: Mapping[str, bytes],
    work: Path,
    private: Path,
    ids: IdRange,
    check: Callable[[], None],
) -> Ready:
    """`tree`: the open root of what a bind takes from. `work`: a directory of this step on the images' file system;
    `private`: one for secrets. Both, and what `stack` holds, go after the command. Raises InvalidArgument.
    """
    binds: list[Bind] = []
    scratch: list[Scratch] = []
    env: list[str] = []
    for number, mount in enumerate(action.mounts):
        if mount.kind == "tmpfs":
            scratch.append(Scratch(target=mount.target, size_bytes=mount.size_bytes))
        elif mount.kind == "cache":
            if mount.from_:
                raise Unsupported("--mount=type=cache with from= is not supported", hint="copy into it in the RUN")
            path = caches.take(stack, mount, work, check)
            binds.append(Bind(source=path, target=mount.target, read_only=mount.read_only))
        elif mount.kind == "bind":
            binds.append(_bind(mount, tree(mount), work / f"bind-{number}"))
        elif mount.id in secrets:
            if mount.env:
                env.append(f"{mount.env}={secrets[mount.id].decode(errors='surrogateescape')}")
            if mount.target:
                binds.append(_secret(mount, secrets[mount.id], private / f"secret-{number}", ids))
        elif mount.required:
            raise InvalidArgument(f"the secret {mount.id} is required", hint=f"--secret id={mount.id},src=FILE")
    if action.script:
        binds.append(_script(action, private / "script", ids))
    return Ready(local=Local(binds=tuple(binds), scratch=tuple(scratch)), env=tuple(env))


def stubs(action: Execute, lower: list[Path]) -> list[str]:
    """Paths that exist only because something was mounted there: no layer below has them."""
    found = []
    targets = [mount.target for mount in action.mounts if mount.target]
    if action.script:
        targets.append(action.argv[0])
    for target in targets:
        parts = target.strip("/").split("/")
        found += [
            path
            for depth in range(len(parts), 0, -1)
            if not any(os.path.lexists(layer / (path := "/".join(parts[:depth]))) for layer in lower)
        ]
    return found


def untouched(upper: Path, made: list[str]) -> list[str]:
    """Those of `made`, deepest first, that hold nothing but each other: the layer leaves them out."""
    left: set[str] = set()
    for path in sorted(set(made), key=lambda one: -one.count("/")):
        place = upper / path
        if place.is_symlink() or not place.exists():
            continue
        if place.is_dir():
            if all(f"{path}/{name.name}" in left for name in place.iterdir()):
                left.add(path)
        elif place.stat().st_size == 0:
            left.add(path)
    return sorted(left)


def _found(tree: int, mount: Mount) -> list[str]:
    return sources.find(tree, mount.source.replace("*", "[*]").replace("?", "[?]"))


def _bind(mount: Mount, tree: int, place: Path) -> Bind:
    found = _found(tree, mount)
    if not found:
        raise InvalidArgument(f"--mount: {mount.source!r} is not there")
    if mount.read_only and not mount.from_:
        fd = sources.open_path(tree, found[0])
        try:
            return Bind(source=Path(f"/proc/self/fd/{fd}").readlink(), target=mount.target, read_only=True)
        finally:
            os.close(fd)
    place.mkdir(mode=0o755)
    fd = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        copying.Writer(fd, copying.Look()).take(tree, found[0], "it", into=False)
    finally:
        os.close(fd)
    return Bind(source=place / "it", target=mount.target, read_only=mount.read_only)


def _secret(mount: Mount, content: bytes, path: Path, ids: IdRange) -> Bind:
    _private_file(path, content, mount.mode, ids.base + mount.uid, ids.base + mount.gid)
    return Bind(source=path, target=mount.target, read_only=True, idmapped=False)


def _script(action: Execute, path: Path, ids: IdRange) -> Bind:
    assert action.argv[0].startswith(f"{SCRIPT}/")
    _private_file(path, action.script.encode(), 0o755, ids.base, ids.base)
    return Bind(source=path, target=action.argv[0], read_only=True, idmapped=False)


def _private_file(path: Path, content: bytes, mode: int, uid: int, gid: int) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with open(fd, "wb") as file:
        file.write(content)
        os.fchown(fd, uid, gid)
        os.fchmod(fd, mode)


def _directory(path: Path, mount: Mount) -> Path:
    if not path.is_dir():
        path.mkdir(mode=0o700, parents=True)
        os.chown(path, mount.uid, mount.gid)
        path.chmod(mount.mode)
    return path


def remove_all(path: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        remove.tree(path)
