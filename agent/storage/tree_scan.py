"""One look at a writable layer: which names lead to which inodes, and how the inodes look. Reads no contents.

The tree may be changing and its owner may be hostile: directories are opened one component at a time without following
links, and what is not what it was a moment ago is left out, to be found by the next scan.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from agent.errors import StorageError
from agent.storage import tree_records

_OPEN_DIRECTORIES = 256
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NOATIME

GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE})  # it is not there, or not what it was

Signature = tuple[int, int, int, int, int, int, int]


class Node:
    """An inode of the source, and what the target has of it."""

    __slots__ = (
        "blocks",
        "created",
        "digest",
        "id",
        "inode",
        "kind",
        "link",
        "racy",
        "rdev",
        "round",
        "sent",
        "signature",
    )

    def __init__(self, node_id: int, status: os.stat_result, link: bytes) -> None:
        self.id = node_id
        self.inode = status.st_ino
        self.kind = stat.S_IFMT(status.st_mode)
        self.rdev = status.st_rdev
        self.link = link
        self.created = False  # the target knows it
        self.round = 0  # the last round that saw it
        self.sent = 0  # the last round that sent it
        self.signature: Signature | None = None  # as it was when it was sent; None: send it again
        self.racy = True  # it was sent so soon after a change that another could hide behind the same times
        self.digest = 0
        self.blocks: tree_records.Blocks | None = None


@dataclass(slots=True)
class Found:
    """One inode in one scan, under the first name that led to it."""

    node: Node
    status: os.stat_result
    parent: int
    name: str


@dataclass(slots=True)
class Scan:
    """`entries` holds parents before their children. Inodes are keyed by their number."""

    started_unix_ns: int
    entries: dict[tuple[int, str], Node] = field(default_factory=dict)
    found: dict[int, Found] = field(default_factory=dict)


def signature(status: os.stat_result) -> Signature:
    """What changes when an inode does; the last item, the time of access, says nothing about its content."""
    return (
        status.st_mode,
        status.st_uid,
        status.st_gid,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
        status.st_atime_ns,
    )


class Directories:
    """Descriptors of the directories of one scan, by the id of their node. Closed with the round."""

    def __init__(self, root: Path | int) -> None:
        """`root`: a path, or a descriptor of the directory, which stays the caller's."""
        self.root_fd = os.open(".", _DIRECTORY, dir_fd=root) if isinstance(root, int) else os.open(root, _DIRECTORY)
        self._open: OrderedDict[int, int] = OrderedDict()
        self._places: dict[int, tuple[int, str, int]] = {}

    def close(self) -> None:
        for fd in (self.root_fd, *self._open.values()):
            os.close(fd)
        self._open.clear()

    def add(self, node_id: int, parent: int, name: str, inode: int) -> None:
        self._places[node_id] = (parent, name, inode)

    def fd(self, node_id: int) -> int:
        """Ours; good until the next call. Raises OSError when the directory is not there any more."""
        missing = []
        while (fd := self.root_fd if node_id == tree_records.ROOT_ID else self._open.get(node_id)) is None:
            missing.append(node_id)
            node_id = self._places[node_id][0]
        for node_id in reversed(missing):
            _, name, inode = self._places[node_id]
            fd = self._open[node_id] = os.open(name, _DIRECTORY, dir_fd=fd)
            if len(self._open) > _OPEN_DIRECTORIES:
                os.close(self._open.popitem(last=False)[1])
            if os.fstat(fd).st_ino != inode:
                os.close(self._open.pop(node_id))
                raise FileNotFoundError(errno.ENOENT, "another directory has its name now", name)
        return fd

    def path(self, parent: int, name: str) -> str:
        """For people: where the scan saw it."""
        parts = [name]
        while parent != tree_records.ROOT_ID:
            parent, name, _ = self._places[parent]
            parts.append(name)
        return os.fsencode("/".join(["", *reversed(parts)])).decode(errors="backslashreplace")


def scan(
    directories: Directories, known: Mapping[int, Node], new_id: Callable[[], int], round_number: int, *, frozen: bool
) -> Scan:
    """List everything. `known`: by inode number, from the previous scan; others get nodes with a `new_id`.

    Raises StorageError for a mount in the tree, and, if `frozen`, for anything that changes meanwhile.
    """
    result = Scan(started_unix_ns=time.time_ns())
    entries, found = result.entries, result.found
    root = os.fstat(directories.root_fd)
    device = root.st_dev
    node = known.get(root.st_ino) or Node(tree_records.ROOT_ID, root, b"")
    node.round, node.created = round_number, True
    found[root.st_ino] = Found(node, root, tree_records.ROOT_ID, ".")
    stack = [tree_records.ROOT_ID]
    while stack:
        directory = stack.pop()
        try:
            fd = directories.fd(directory)
            with os.scandir(fd) as listing:
                for entry in listing:
                    name = entry.name
                    try:
                        status = entry.stat(follow_symlinks=False)
                        if status.st_dev != device:
                            path = directories.path(directory, name)
                            raise StorageError(f"{path} in the writable layer is a mount", hint="unmount it first")
                        inode = status.st_ino
                        seen = found.get(inode)
                        if seen is None:
                            node = _node(fd, name, status, known.get(inode), new_id)
                            node.round = round_number
                            found[inode] = Found(node, status, directory, name)
                            if node.kind == stat.S_IFDIR:
                                directories.add(node.id, directory, name, inode)
                                stack.append(node.id)
                        elif seen.node.kind != stat.S_IFMT(status.st_mode) or seen.node.kind == stat.S_IFDIR:
                            # A directory that moved while we looked, or a number that was used again.
                            raise FileNotFoundError(errno.ENOENT, "moved", name)
                        else:
                            node = seen.node
                        entries[directory, name] = node
                    except FileNotFoundError as exc:
                        if frozen:
                            raise moved(directories.path(directory, name)) from exc
        except OSError as exc:
            if frozen or exc.errno not in GONE:
                raise StorageError(f"cannot list a directory of the writable layer: {exc}") from exc
    return result


def _node(fd: int, name: str, status: os.stat_result, old: Node | None, new_id: Callable[[], int]) -> Node:
    """The node that the inode had, if it can be that inode still: kernels use a number again as soon as it is free."""
    kind = stat.S_IFMT(status.st_mode)
    link = b""
    if kind == stat.S_IFLNK:
        if old is not None and not old.racy and old.signature == signature(status):
            return old
        link = _read_link(fd, name, status.st_ino)
    if old is None or old.kind != kind or old.rdev != status.st_rdev or old.link != link:
        return Node(new_id(), status, link)
    return old


def _read_link(directory_fd: int, name: str, inode: int) -> bytes:
    fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=directory_fd)
    try:
        status = os.fstat(fd)
        if status.st_ino != inode or not stat.S_ISLNK(status.st_mode):
            raise FileNotFoundError(errno.ENOENT, "replaced", name)
        return os.readlink(b"", dir_fd=fd)
    finally:
        os.close(fd)


def moved(path: str) -> StorageError:
    """The error for what cannot happen in a frozen tree."""
    return StorageError(
        f"{path} changed in the last round, which needs a frozen container",
        hint="something outside the container writes to its layer: stop that",
    )
