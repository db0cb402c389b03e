"""Where a path leads in a tree that is somebody else's, and where a copy goes: Docker's rules of `cp`."""

from __future__ import annotations

import errno
import os
import posixpath
import stat
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from agent.linux import openat2

PATH_DIRECTORY = os.O_PATH | os.O_DIRECTORY
_HOPS = 40  # links one after the other, as many as the kernel follows


class Misfit(Exception):
    """What is asked for does not fit what is there; the text is for people."""


@dataclass(frozen=True, kw_only=True)
class Source:
    """What is copied. `name`: of the first member of its tar; "." for the contents of a directory."""

    name: bytes
    mode: int
    size: int = 0
    mtime_ns: int = 0
    link_target: bytes = b""

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.mode)


@dataclass(kw_only=True)
class Located:
    """`name` in the open directory `parent`; `text`: the path of the two in the root. `status` None: nothing is there.

    A context manager that closes `parent`.
    """

    parent: int
    name: bytes
    text: bytes
    status: os.stat_result | None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self.parent)


def says_directory(path: bytes) -> bool:
    """Whether the path can only mean a directory: "dir/", "dir/."."""
    return path.endswith((b"/", b"/.")) or path == b"."


def says_contents(path: bytes) -> bool:
    """Whether what is in the directory is meant: "dir/.", "dir/./", "./"."""
    return path.rstrip(b"/").rpartition(b"/")[2] == b"."


def locate(root: int, path: bytes, *, follow: bool) -> Located:
    """Find `path`, from the open directory `root` as "/". `follow`: a link at its end too, also one that leads nowhere yet.

    Raises OSError; FileNotFoundError where the directory that it would be in is not there.
    """
    text = posixpath.normpath(b"/" + path.lstrip(b"/"))
    for _ in range(_HOPS):
        above, _, name = text.rpartition(b"/")
        if name in (b"", b".", b".."):
            parent, name = openat2.open_in_root(root, text or b"/", PATH_DIRECTORY), b"."
        else:
            parent = openat2.open_in_root(root, above or b"/", PATH_DIRECTORY)
        try:
            status = _status(parent, name)
            if status is None or not (follow and stat.S_ISLNK(status.st_mode)):
                return Located(parent=parent, name=name, text=text, status=status)
            target = os.fsencode(os.readlink(name, dir_fd=parent))
        except OSError as exc:
            os.close(parent)
            raise OSError(exc.errno, exc.strerror, os.fsdecode(path)) from exc
        os.close(parent)
        text = (target if target.startswith(b"/") else above + b"/" + target).rstrip(b"/")
    raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), os.fsdecode(path))


def source(root: int, path: bytes, *, follow: bool) -> tuple[Located, Source]:
    """What is at `path`, to be copied. The caller closes the first. Raises OSError, Misfit."""
    located = locate(root, path, follow=follow or says_directory(path))
    status = located.status
    try:
        if status is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fsdecode(path))
        if says_directory(path) and not stat.S_ISDIR(status.st_mode):
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), os.fsdecode(path))
        own = posixpath.basename(posixpath.normpath(b"/" + path))
        contents = says_contents(path) or not own
        link = os.fsencode(os.readlink(located.name, dir_fd=located.parent)) if stat.S_ISLNK(status.st_mode) else b""
    except OSError:
        os.close(located.parent)
        raise
    return located, Source(
        name=b"." if contents else own,
        mode=status.st_mode,
        size=status.st_size,
        mtime_ns=status.st_mtime_ns,
        link_target=link,
    )


@dataclass(kw_only=True)
class Destination:
    """`directory`: open; what the tar holds goes into it, its first name replaced by `rename` where that is not "".

    `text`: the directory's path in the root. A context manager that closes it.
    """

    directory: int
    text: bytes
    source: Source | None
    rename: bytes = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self.directory)

    def place(self, parts: list[bytes]) -> list[bytes]:
        """Where a member goes, from `directory`."""
        if not self.rename:
            return parts
        assert self.source is not None
        return [self.rename, *(parts if self.source.name == b"." else parts[1:])]


def destination(root: int, path: bytes, what: Source | None) -> Destination:
    """Where a copy of `what` to `path` goes; None: a tar of anything, which goes into a directory.

    Raises Misfit, OSError.
    """
    shown = os.fsdecode(path)
    with locate(root, path, follow=True) as found:
        status = found.status
        if status is not None and stat.S_ISDIR(status.st_mode):
            directory = os.open(found.name, PATH_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=found.parent)
            return Destination(directory=directory, text=found.text, source=what)
        if what is None:
            raise Misfit(f"the destination {shown} must be a directory")
        if status is not None:
            if not stat.S_ISREG(status.st_mode):
                raise Misfit(f"the destination {shown} must be a directory or a regular file")
            if says_directory(path):
                raise Misfit(f"the destination {shown} is no directory")
            if what.is_directory:
                raise Misfit(f"cannot copy a directory to the file {shown}")
        elif says_directory(path) and not what.is_directory:
            raise Misfit(f"the destination directory {shown} does not exist")
        return Destination(
            directory=os.dup(found.parent),
            text=posixpath.dirname(found.text) or b"/",
            source=what,
            rename=found.name,
        )


def _status(parent: int, name: bytes) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return None
