"""One look at a writable layer, all of it: which names lead to which inodes, and how the inodes look. Reads no contents.

`tree_rescan` looks only at what the kernel has named.

The tree may be changing and its owner may be hostile: directories are opened one component at a time without following
links, and what is not what it was a moment ago is left out, to be found by the next scan.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from agent.errors import StorageError
from agent.storage import tree_records

_OPEN_DIRECTORIES = 256
_DEPTH_LIMIT = (
    1 << 16
)  # deeper than any tree: names that lead round in a circle, for they were read one after the other
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NOATIME

GONE = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ESTALE})  # it is not there, or not what it was

Signature = tuple[int, int, int, int, int, int, int]


class Node:
    """An inode of the source, and what the target has of it."""

    __slots__ = (
        "blocks",
        "children",
        "created",
        "digest",
        "id",
        "inode",
        "kind",
        "link",
        "places",
        "racy",
        "rdev",
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
        self.places: list[Place] = []  # its names there; the root has none
        self.children: dict[str, Node] = {}  # of a directory
        self.sent = 0  # the last round that sent it
        self.signature: Signature | None = None  # as it was when it was sent; None: send it again
        self.racy = True  # it was sent so soon after a change that another could hide behind the same times
        self.digest = 0
        self.blocks: tree_records.Blocks | None = None


Place = tuple[Node, str]
Entry = tuple[Node, str, Node]  # directory, name, what it leads to


@dataclass(slots=True)
class Found:
    """One inode that is to be compared with what the target has, under a name that leads to it now."""

    node: Node
    status: os.stat_result
    parent: Node
    name: str


@dataclass(slots=True)
class Scan:
    """What a look has found. `added` holds parents before their children. `found`: by inode number, all that may differ.

    `written`: inode numbers of files to read whatever their times say. `complete`: False when a directory moved while it was to be
    listed: what is in it looks removed, and no event will name it, so the next look must be at everything.
    """

    started_unix_ns: int
    removed: list[Entry] = field(default_factory=list)
    added: list[Entry] = field(default_factory=list)
    found: dict[int, Found] = field(default_factory=dict)
    written: set[int] = field(default_factory=set)
    complete: bool = True


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
    """Descriptors of the directories of one look, by their node: where the look saw them, else where they were. Closed with the round."""

    def __init__(self, root: Path | int) -> None:
        """`root`: a path, or a descriptor of the directory, which stays the caller's."""
        self.root_fd = os.open(".", _DIRECTORY, dir_fd=root) if isinstance(root, int) else os.open(root, _DIRECTORY)
        self._open: OrderedDict[int, int] = OrderedDict()
        self._places: dict[int, Place] = {}

    def close(self) -> None:
        for fd in (self.root_fd, *self._open.values()):
            os.close(fd)
        self._open.clear()

    def add(self, node: Node, parent: Node, name: str) -> None:
        """It is here now."""
        self._places[node.id] = (parent, name)

    def forget(self) -> None:
        """Where directories were seen in this look."""
        self._places.clear()
        while self._open:
            os.close(self._open.popitem()[1])

    def seen(self, node: Node) -> bool:
        return node.id in self._places

    def place(self, node: Node) -> Place | None:
        return self._places.get(node.id) or (node.places[0] if node.places else None)

    def keep(self, node: Node, fd: int) -> None:
        """`fd` is ours now, and good until the next call."""
        if node.id in self._open:
            os.close(self._open.pop(node.id))
        self._open[node.id] = fd
        if len(self._open) > _OPEN_DIRECTORIES:
            os.close(self._open.popitem(last=False)[1])

    def fd(self, node: Node) -> int:
        """Ours; good until the next call. Raises OSError when the directory is not there any more."""
        missing: list[tuple[Node, str]] = []
        while (fd := self.root_fd if node.id == tree_records.ROOT_ID else self._open.get(node.id)) is None:
            place = self.place(node)
            if place is None or len(missing) > _DEPTH_LIMIT:
                raise FileNotFoundError(errno.ENOENT, "the directory has no name now")
            missing.append((node, place[1]))
            node = place[0]
        for node, name in reversed(missing):
            fd = os.open(name, _DIRECTORY, dir_fd=fd)
            self.keep(node, fd)
            if os.fstat(fd).st_ino != node.inode:
                os.close(self._open.pop(node.id))
                raise FileNotFoundError(errno.ENOENT, "another directory has its name now", name)
        return fd

    def path(self, parent: Node, name: str) -> str:
        """For people: where it was seen."""
        parts = [name]
        while (place := self.place(parent)) and len(parts) < _DEPTH_LIMIT:
            parent, name = place
            parts.append(name)
        return os.fsencode("/".join(["", *reversed(parts)])).decode(errors="backslashreplace")


def scan(directories: Directories, known: Mapping[int, Node], new_id: Callable[[], int], *, frozen: bool) -> Scan:
    """List everything. `known`: by inode number, from the previous look; others get nodes with a `new_id`.

    Raises StorageError for a mount in the tree, and, if `frozen`, for anything that changes meanwhile.
    """
    result = Scan(started_unix_ns=time.time_ns())
    status = os.fstat(directories.root_fd)
    root = known.get(status.st_ino) or Node(tree_records.ROOT_ID, status, b"")
    root.created = True
    result.found[status.st_ino] = Found(root, status, root, ".")
    present: set[tuple[int, str]] = set()

    def gone(directory: Node, name: str, exc: OSError) -> None:
        if name and frozen:
            raise moved(directories.path(directory, name)) from exc
        if not name and (frozen or exc.errno not in GONE):
            raise StorageError(f"cannot list a directory of the writable layer: {exc}") from exc
        result.complete = result.complete and bool(name)

    for entry in walk(directories, root, known, new_id, result.found, gone):
        parent, name, node = entry
        present.add((parent.id, name))
        if parent.children.get(name) is not node:
            result.added.append(entry)
    for node in known.values():
        for name, child in node.children.items():
            if (node.id, name) not in present:
                result.removed.append((node, name, child))
    replaced = ((parent, name, parent.children[name]) for parent, name, _ in result.added if name in parent.children)
    result.removed.extend(replaced)
    return result


def walk(
    directories: Directories,
    top: Node,
    known: Mapping[int, Node],
    new_id: Callable[[], int],
    found: dict[int, Found],
    gone: Callable[[Node, str, OSError], None],
) -> Iterator[Entry]:
    """All names below `top`, parents before their children; adds to `found`. Raises StorageError for a mount.

    `gone` is told of a name that was there a moment ago, or has become another one's, and of a directory (name "") that cannot be listed.
    """
    device = os.fstat(directories.root_fd).st_dev
    stack = [top]
    while stack:
        directory = stack.pop()
        try:
            fd = directories.fd(directory)
            with os.scandir(fd) as listing:
                for entry in listing:
                    name = entry.name
                    try:
                        status = entry.stat(follow_symlinks=False)
                        refuse_mount(directories, directory, name, status, device)
                        seen = found.get(status.st_ino)
                        if seen is None:
                            node = node_of(fd, name, status, known.get(status.st_ino), new_id)
                        elif seen.node.kind != stat.S_IFMT(status.st_mode):
                            raise FileNotFoundError(errno.ENOENT, "its number was used again", name)
                        else:
                            node = seen.node
                        if node.kind == stat.S_IFDIR:
                            if directories.seen(node):
                                raise FileNotFoundError(errno.ENOENT, "moved while we looked", name)
                            directories.add(node, directory, name)
                            stack.append(node)
                        if seen is None or node.kind == stat.S_IFDIR:
                            found[status.st_ino] = Found(node, status, directory, name)
                    except FileNotFoundError as exc:
                        gone(directory, name, exc)
                    else:
                        yield directory, name, node
        except OSError as exc:
            gone(directory, "", exc)


def refuse_mount(directories: Directories, parent: Node, name: str, status: os.stat_result, device: int) -> None:
    if status.st_dev != device:
        path = directories.path(parent, name)
        raise StorageError(f"{path} in the writable layer is a mount", hint="unmount it first")


def node_of(fd: int, name: str, status: os.stat_result, old: Node | None, new_id: Callable[[], int]) -> Node:
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
