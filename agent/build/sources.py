"""Finds what COPY takes in a directory tree, and digests it. The tree is somebody else's: symbolic links stay inside it.

A pattern matches name by name, as Go's filepath.Match does: `*`, `?`, `[a-z]`, `[^a-z]`, `\\`. The kernel resolves each
path with the tree as "/" (openat2).
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from agent.errors import InvalidArgument
from agent.storage import rawfs

OVERLAY = "trusted.overlay."
DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_READ_BYTES = 1 << 20
_WILD = re.compile(r"[*?\[\\]")


class Matcher(Protocol):
    """e2b_dockerfile_utils.PatternMatcher."""

    def matches(self, path: str) -> bool: ...


class Everything:
    """Excludes nothing."""

    def matches(self, path: str) -> bool:  # noqa: ARG002  # a Matcher is asked with it
        return False


@dataclass(frozen=True, kw_only=True)
class Entry:
    """Something below a directory that is walked: `parent` is open as long as the walk stands here."""

    path: str  # from where the walk began
    parent: int
    name: str
    status: os.stat_result


def find(root: int, pattern: str) -> list[str]:
    """Paths in the tree of the directory `root`, sorted. Nothing fits a pattern with wildcards: []. A plain path that
    is not there raises InvalidArgument.
    """
    parts = [part for part in pattern.split("/") if part not in ("", ".")]
    if ".." in parts:
        parts = _without_parents(parts)
    found = [""]
    for part in parts:
        if not _WILD.search(part):
            found = [_join(path, part) for path in found]
            continue
        try:
            compiled = re.compile(_regex(part), re.DOTALL)
        except (re.error, ValueError) as exc:
            raise InvalidArgument(f"{pattern!r} is no pattern: {exc}") from exc
        found = [_join(path, name) for path in found for name in sorted(_names(root, path)) if compiled.fullmatch(name)]
    there = [path for path in found if _exists(root, path)]
    if not there and not _WILD.search("/".join(parts)):
        raise InvalidArgument(f"{pattern!r} is not there", hint="paths begin at the context; see also .dockerignore")
    return there


def open_path(root: int, path: str, flags: int = os.O_PATH) -> int:
    """A descriptor of what `path` leads to inside the tree."""
    return rawfs.open_in_root(root, os.fsencode(path) or b".", flags)


def is_directory(root: int, path: str) -> bool:
    fd = open_path(root, path)
    try:
        return stat.S_ISDIR(os.fstat(fd).st_mode)
    finally:
        os.close(fd)


def walk(fd: int, path: str = "", exclude: Matcher | None = None) -> Iterator[Entry]:
    """Everything below the open directory, parents first, sorted. `fd` stays the caller's."""
    exclude = exclude or Everything()
    for name in sorted(os.listdir(fd)):
        status = os.stat(name, dir_fd=fd, follow_symlinks=False)
        inner = _join(path, name)
        excluded = exclude.matches(inner)
        if not excluded:
            yield Entry(path=inner, parent=fd, name=name, status=status)
        if stat.S_ISDIR(status.st_mode):
            below = os.open(name, DIRECTORY, dir_fd=fd)
            try:
                yield from walk(below, inner, exclude)
            finally:
                os.close(below)


def digest(root: int, paths: Sequence[str], exclude: Matcher | None = None) -> str:
    """sha256 of names, kinds, modes, owners, xattrs and bytes of `paths` and all below them. Times do not count."""
    whole = hashlib.sha256()
    for path in paths:
        fd = open_path(root, path)
        try:
            status = os.fstat(fd)
            name = "" if stat.S_ISDIR(status.st_mode) else path.rpartition("/")[2]
            _put(whole, name, status, *_content_of(root, path, status))
            if stat.S_ISDIR(status.st_mode):
                below = open_path(root, path, os.O_RDONLY | os.O_DIRECTORY)
                try:
                    for entry in walk(below, "", exclude):
                        _put(whole, entry.path, entry.status, *_content(entry))
                finally:
                    os.close(below)
        finally:
            os.close(fd)
    return whole.hexdigest()


def xattrs(path: str | int) -> dict[str, bytes]:
    """Those that belong to the file; of a path, its own and not those of what it leads to."""
    follow = isinstance(path, int)
    return {
        name: os.getxattr(path, name, follow_symlinks=follow)
        for name in sorted(os.listxattr(path, follow_symlinks=follow))
        if not name.startswith(OVERLAY)
    }


def entry_place(entry: Entry) -> str:
    """A path of exactly this entry, for the calls that take no descriptor."""
    return f"/proc/self/fd/{entry.parent}/{entry.name}"


def _content_of(root: int, path: str, status: os.stat_result) -> tuple[str, dict[str, bytes]]:
    if not stat.S_ISREG(status.st_mode):
        return "", {}
    fd = open_path(root, path, os.O_RDONLY)
    try:
        return _hash(fd), xattrs(fd)
    finally:
        os.close(fd)


def _content(entry: Entry) -> tuple[str, dict[str, bytes]]:
    mode = entry.status.st_mode
    own = xattrs(entry_place(entry))
    if stat.S_ISLNK(mode):
        return os.readlink(entry.name, dir_fd=entry.parent), own
    if not stat.S_ISREG(mode):
        return "", own
    fd = os.open(entry.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=entry.parent)
    try:
        return _hash(fd), own
    finally:
        os.close(fd)


def _hash(fd: int) -> str:
    content = hashlib.sha256()
    while chunk := os.read(fd, _READ_BYTES):
        content.update(chunk)
    return content.hexdigest()


def _put(whole: hashlib._Hash, name: str, status: os.stat_result, content: str, own: dict[str, bytes]) -> None:
    kind = stat.S_IFMT(status.st_mode)
    device = status.st_rdev if kind in (stat.S_IFCHR, stat.S_IFBLK) else 0
    mode = 0 if kind == stat.S_IFLNK else stat.S_IMODE(status.st_mode)
    record = (name, kind, mode, status.st_uid, status.st_gid, device, content, sorted(own.items()))
    whole.update(repr(record).encode("utf-8", "surrogateescape") + b"\0")


def _names(root: int, path: str) -> list[str]:
    try:
        fd = open_path(root, path, os.O_RDONLY | os.O_DIRECTORY)
    except (FileNotFoundError, NotADirectoryError):
        return []
    try:
        return os.listdir(fd)  # noqa: PTH208  # of a descriptor
    finally:
        os.close(fd)


def _exists(root: int, path: str) -> bool:
    try:
        os.close(open_path(root, path))
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def _without_parents(parts: list[str]) -> list[str]:
    """ "../x" is "x": nothing lies above the context."""
    kept: list[str] = []
    for part in parts:
        if part != "..":
            kept.append(part)
        elif kept:
            kept.pop()
    return kept


def _join(path: str, name: str) -> str:
    return f"{path}/{name}" if path else name


def _regex(pattern: str) -> str:
    out, position = "", 0
    while position < len(pattern):
        character = pattern[position]
        position += 1
        if character == "*":
            out += ".*"
        elif character == "?":
            out += "."
        elif character == "\\":
            if position == len(pattern):
                raise ValueError("it ends with a backslash")
            out += re.escape(pattern[position])
            position += 1
        elif character == "[":
            end = pattern.find("]", position + 1 + (pattern[position : position + 1] == "^"))
            if end < 0:
                raise ValueError("a [ without its ]")
            inside = pattern[position:end]
            negated, inside = inside.startswith("^"), inside.removeprefix("^")
            out += "[" + ("^" if negated else "") + re.sub(r"([\[\]^&|~])", r"\\\1", inside) + "]"
            position = end + 1
        else:
            out += re.escape(character)
    return out
