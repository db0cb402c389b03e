"""What a container has changed in its files: the upper directory of its overlay beside the layers below. Nothing is mounted.

Docker's letters: A added, C changed, D deleted. A directory that only leads to a change is changed too. Of a directory that hides what
was below it (opaque) everything that is gone is named, but not what was in that. Others may write to the directory meanwhile: what is not
there any more when its turn comes is left out.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from agent.errors import StorageError
from agent.storage.unpack import OVERLAY_OPAQUE, OVERLAY_PREFIX

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Kind(StrEnum):
    ADDED = "A"
    CHANGED = "C"
    DELETED = "D"


@dataclass(frozen=True, kw_only=True)
class Change:
    """`path`: absolute, in the container."""

    kind: Kind
    path: bytes


def between(
    upper: Path, lower: Sequence[Path], *, ignore: Collection[str] = (), places: Collection[str] = ()
) -> list[Change]:
    """By path. `lower`: the layers below, base first. `ignore`: paths ("etc/hosts") that are no changes, and leave no trace in the
    times of their directory. `places`: directories ("proc") that are no changes while nothing is in them. Raises StorageError.
    """
    comparison = _Comparison(lower, {os.fsencode(one) for one in ignore}, {os.fsencode(one) for one in places})
    try:
        comparison.run(upper)
    except OSError as exc:
        raise StorageError(f"cannot read {upper}: {exc.strerror} ({exc.filename!r})") from exc
    return [Change(kind=kind, path=b"/" + path) for path, kind in sorted(comparison.found.items())]


class _Comparison:
    def __init__(self, lower: Sequence[Path], ignore: set[bytes], places: set[bytes]) -> None:
        self._lower = [os.fsencode(path) for path in reversed(lower)]  # top first
        self._ignore, self._places = ignore, places
        self._touched = {path.rpartition(b"/")[0] for path in ignore}  # their times are not the container's doing
        self.found: dict[bytes, Kind] = {}

    def run(self, upper: Path) -> None:
        pending: list[tuple[int, bytes]] = [(os.open(upper, _DIRECTORY), b"")]
        try:
            while pending:
                fd, path = pending.pop()
                try:
                    for name in sorted(os.fsencode(one) for one in os.listdir(fd)):  # noqa: PTH208  # of a descriptor
                        try:
                            pending += self._entry(fd, name, path + b"/" + name if path else name)
                        except (FileNotFoundError, NotADirectoryError):
                            continue  # it has just gone, or become another kind of file
                finally:
                    os.close(fd)
        finally:
            for fd, _ in pending:
                os.close(fd)

    def _entry(self, parent: int, name: bytes, path: bytes) -> Iterator[tuple[int, bytes]]:
        """Returns the directory to look into."""
        if path in self._ignore:
            return
        status = os.stat(name, dir_fd=parent, follow_symlinks=False)
        below = self._below(path)
        if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0:
            if below is not None:
                self._note(path, Kind.DELETED)
            return
        if not stat.S_ISDIR(status.st_mode):
            self._note(path, Kind.ADDED if below is None else Kind.CHANGED)
            return
        fd = os.open(name, _DIRECTORY, dir_fd=parent)
        try:
            self._directory(fd, path, status, below)
        except BaseException:
            os.close(fd)
            raise
        yield fd, path

    def _directory(self, fd: int, path: bytes, status: os.stat_result, below: bytes | None) -> None:
        xattrs = _xattrs(fd)
        if below is None:
            if path not in self._places and not self._holds_only_ignored(fd, path):
                self._note(path, Kind.ADDED)
            return
        seen = os.lstat(below)
        if not stat.S_ISDIR(seen.st_mode):
            self._note(path, Kind.CHANGED)
            return
        same = (seen.st_mode, seen.st_uid, seen.st_gid) == (status.st_mode, status.st_uid, status.st_gid)
        same = same and (seen.st_mtime_ns == status.st_mtime_ns or path in self._touched)
        if not same or _plain(_xattrs(below)) != _plain(xattrs):
            self._note(path, Kind.CHANGED)
        if xattrs.get(OVERLAY_OPAQUE) == b"y":
            here = {os.fsencode(one) for one in os.listdir(fd)}  # of a descriptor
            for name in self._names_below(path) - here:
                self._note(path + b"/" + name, Kind.DELETED)

    def _note(self, path: bytes, kind: Kind) -> None:
        self.found[path] = kind
        above = path.rpartition(b"/")[0]
        while above and above not in self.found:
            self.found[above] = Kind.CHANGED
            above = above.rpartition(b"/")[0]

    def _holds_only_ignored(self, fd: int, path: bytes) -> bool:
        """Made for what is ignored, and for nothing else."""
        names = [path + b"/" + os.fsencode(one) for one in os.listdir(fd)]  # of a descriptor
        return path in self._touched and bool(names) and all(name in self._ignore for name in names)

    # ------------------------------------------------------------ the layers below

    def _below(self, path: bytes) -> bytes | None:
        """Where overlayfs would find the path in the layers below; None where nothing is to be seen."""
        for place, status in self._places_below(path):
            return None if stat.S_ISCHR(status.st_mode) and status.st_rdev == 0 else place
        return None

    def _names_below(self, path: bytes) -> set[bytes]:
        """What overlayfs would list in the directory, of the layers below."""
        seen: set[bytes] = set()
        gone: set[bytes] = set()
        for place, status in self._places_below(path):
            if not stat.S_ISDIR(status.st_mode):
                break
            with os.scandir(place) as entries:
                for entry in entries:
                    inner = entry.stat(follow_symlinks=False)
                    whiteout = stat.S_ISCHR(inner.st_mode) and inner.st_rdev == 0
                    if entry.name not in seen | gone:
                        (gone if whiteout else seen).add(entry.name)
        return seen

    def _places_below(self, path: bytes) -> Iterator[tuple[bytes, os.stat_result]]:
        """(place, status), top first, as far down as overlayfs looks."""
        parts = path.split(b"/")
        for layer in self._lower:
            place = layer
            for depth, part in enumerate(parts, 1):
                place = place + b"/" + part
                try:
                    status = os.lstat(place)
                except (FileNotFoundError, NotADirectoryError):
                    break  # not in this layer: look further down
                if depth == len(parts):
                    yield place, status
                    if not stat.S_ISDIR(status.st_mode) or _opaque(place):
                        return
                elif not stat.S_ISDIR(status.st_mode):
                    return  # a whiteout or a file hides what is below
            if self._hides(layer, parts):
                return

    @staticmethod
    def _hides(layer: bytes, parts: Sequence[bytes]) -> bool:
        """Whether a directory on the way is opaque in this layer."""
        place = layer
        for part in parts:
            place = place + b"/" + part
            try:
                if not stat.S_ISDIR(os.lstat(place).st_mode):
                    return False
                if _opaque(place):
                    return True
            except (FileNotFoundError, NotADirectoryError):
                return False
        return False


def _opaque(place: bytes) -> bool:
    try:
        return os.getxattr(place, OVERLAY_OPAQUE, follow_symlinks=False) == b"y"
    except OSError:
        return False


def _xattrs(where: int | bytes) -> dict[str, bytes]:
    follow = isinstance(where, int)
    return {
        name: os.getxattr(where, name, follow_symlinks=follow) for name in os.listxattr(where, follow_symlinks=follow)
    }


def _plain(xattrs: dict[str, bytes]) -> dict[str, bytes]:
    return {name: value for name, value in xattrs.items() if not name.startswith(OVERLAY_PREFIX)}
