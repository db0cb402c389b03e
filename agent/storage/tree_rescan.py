"""A look at what the kernel has named since the last one (tree_watch), and at nothing else: its cost is that of the changes.

Names are looked up in their directories, which are opened by handle: so it does not matter in which order directories moved. What is new is
listed with all below it; what lost its last name is gone with all below it.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable, Collection, Mapping

from agent.errors import StorageError
from agent.storage import tree_scan
from agent.storage.tree_scan import Directories, Entry, Found, Node, Place, Scan
from agent.storage.tree_watch import Noted, TreeWatch

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC | os.O_NOATIME


class NotClear(Exception):
    """What was read does not fit together, for it moved meanwhile: look at everything."""


class Rescan:
    """One look. `known` as in tree_scan.scan."""

    def __init__(
        self,
        watch: TreeWatch,
        noted: Noted,
        directories: Directories,
        known: Mapping[int, Node],
        new_id: Callable[[], int],
        *,
        frozen: bool,
    ) -> None:
        self._watch, self._noted, self._directories = watch, noted, directories
        self._known, self._new_id, self._frozen = known, new_id, frozen
        status = os.fstat(directories.root_fd)
        self._device, self._root = status.st_dev, known[status.st_ino]
        self._scan = Scan(started_unix_ns=time.time_ns())
        self._removed: dict[tuple[int, str], Entry] = {}
        self._added: dict[tuple[int, str], Entry] = {}
        self._asked: set[tuple[int, str]] = set()
        self._new: list[Node] = []  # directories to list, once it is known where all others are

    def run(self, again: Collection[Node], always: Collection[int]) -> Scan:
        """`again`: nodes to compare once more; `always`: inode numbers of files to read. Raises NotClear, and as tree_scan.scan."""
        scan, noted = self._scan, self._noted
        for inode, names in noted.names.items():
            directory = self._known.get(inode)
            if directory is not None and directory.kind == stat.S_IFDIR:
                self._look_up(directory, names)
        self._list_new()
        self._check_moved_directories()
        self._bury()
        added = {key: entry for key, entry in self._added.items() if self._alive(entry[0])}
        if self._frozen and len(added) < len(self._added):
            raise NotClear("a name was added to a directory that is not in the tree")
        scan.removed, scan.added = list(self._removed.values()), list(added.values())
        scan.written = noted.written.union(always)
        seen, scan.found = scan.found, {}
        unsure = set(again)
        for inode, found in seen.items():
            if found.node is self._root or (self._leads_to(added, found) and self._alive(found.parent)):
                scan.found[inode] = found
            else:
                unsure.add(found.node)  # it went with its directory, and may have another name
        self._add_candidates(unsure)
        return scan

    # ------------------------------------------------------------ names

    def _look_up(self, directory: Node, names: set[str]) -> None:
        try:
            fd = self._open(directory)
        except FileNotFoundError:
            for name in names:
                self._resolve(directory, name, None, -1)
            return
        try:
            self._resolve(directory, ".", os.fstat(fd), fd)  # a name that came and went leaves its time
            for name in names:
                try:
                    status = os.stat(name, dir_fd=fd, follow_symlinks=False)
                except FileNotFoundError:
                    status = None
                self._resolve(directory, name, status, fd)
        finally:
            os.close(fd)

    def _open(self, directory: Node) -> int:
        if directory is self._root:
            return os.dup(self._directories.root_fd)
        if directory.inode in self._noted.handles:
            return self._watch.open_directory(self._noted, directory.inode, _DIRECTORY)
        return os.dup(self._directories.fd(directory))

    def _resolve(self, directory: Node, name: str, status: os.stat_result | None, fd: int) -> None:
        """`status`: of what the name leads to now."""
        if name == ".":
            if status is not None:
                place = self._directories.place(directory) or (directory, ".")
                self._scan.found.setdefault(directory.inode, Found(directory, status, *place))
            return
        key = (directory.id, name)
        if key in self._asked:
            return
        self._asked.add(key)
        before = directory.children.get(name)
        node = self._node(directory, name, status, fd) if status is not None else None
        if node is before:
            if node is not None and status is not None:
                self._scan.found.setdefault(node.inode, Found(node, status, directory, name))
            return
        if before is not None:
            self._removed[key] = (directory, name, before)
        if node is None or status is None:
            return
        self._added[key] = (directory, name, node)
        self._scan.found[node.inode] = Found(
            node, status, directory, name
        )  # a name that is there, unlike others perhaps
        if node.kind == stat.S_IFDIR:
            if self._directories.seen(node):
                raise NotClear("a directory has two names")
            self._directories.add(node, directory, name)
            if not node.created:
                self._new.append(node)

    def _node(self, directory: Node, name: str, status: os.stat_result, fd: int) -> Node | None:
        tree_scan.refuse_mount(self._directories, directory, name, status, self._device)
        found = self._scan.found.get(status.st_ino)
        old = found.node if found else self._known.get(status.st_ino)
        if found and found.node.kind != stat.S_IFMT(status.st_mode):
            raise NotClear("an inode number was used again")
        try:
            return tree_scan.node_of(fd, name, status, old, self._new_id)
        except FileNotFoundError as exc:
            if self._frozen:
                raise tree_scan.moved(self._directories.path(directory, name)) from exc
            raise NotClear("a link was replaced") from exc

    def _list_new(self) -> None:
        """All that is in directories that the target does not know, and in those that moved there."""
        while self._new:
            top = self._new.pop(0)
            for directory, name, node in tree_scan.walk(
                self._directories, top, self._known, self._new_id, self._scan.found, self._gone
            ):
                key, before = (directory.id, name), directory.children.get(name)
                if key in self._asked:
                    if (self._added[key][2] if key in self._added else before) is not node:
                        raise NotClear("a name led to one inode, and then to another")
                    continue
                self._asked.add(key)
                if before is not node:
                    self._added[key] = (directory, name, node)
                    if before is not None:
                        self._removed[key] = (directory, name, before)

    def _gone(self, directory: Node, name: str, exc: OSError) -> None:
        """A name that went after the events were taken is in the next ones."""
        if self._frozen or not name:
            raise NotClear(f"{self._directories.path(directory, name)} was gone: {exc}") from exc

    def _check_moved_directories(self) -> None:
        """A directory has one name: where it has a new one, the old one is gone, though its event may only be on its way."""
        checked: set[tuple[int, str]] = set()
        while pending := self._added.keys() - checked:
            checked |= pending
            for key in pending:
                node = self._added[key][2]
                if node.kind != stat.S_IFDIR or not node.places:
                    continue
                parent, name = node.places[0]
                self._look_up(parent, {name})
                if (parent.id, name) not in self._removed:
                    raise NotClear("a directory has two names")
            self._list_new()

    # ------------------------------------------------------------ what is left

    def _place(self, node: Node) -> Place | None:
        """Where it is now: a name that was added, else one that is still there."""
        if node.kind == stat.S_IFDIR and self._directories.seen(node):
            return self._directories.place(node)
        return next((place for place in node.places if (place[0].id, place[1]) not in self._removed), None)

    def _leads_to(self, added: Mapping[tuple[int, str], Entry], found: Found) -> bool:
        """Whether the name that it was found under is still its own: another may have it since, such as overlayfs' mark of its removal."""
        key = (found.parent.id, found.name)
        if key in added:
            return added[key][2] is found.node
        return key not in self._removed

    def _alive(self, directory: Node) -> bool:
        """Whether its names lead up to the root."""
        steps = 0
        while directory is not self._root:
            place = self._place(directory)
            steps += 1
            if place is None:
                return False
            if steps > len(self._known) + len(self._added):
                raise NotClear("names lead round in a circle")
            directory = place[0]
        return True

    def _bury(self) -> None:
        """Of a directory that is gone all names are gone that are still known: it went out of the tree with what was in it."""
        pending = [node for _, _, node in self._removed.values() if node.kind == stat.S_IFDIR]
        buried: set[int] = set()
        while pending:
            directory = pending.pop()
            if directory.id in buried or self._alive(directory):
                continue
            buried.add(directory.id)
            for name, node in directory.children.items():
                self._removed[directory.id, name] = (directory, name, node)
                if node.kind == stat.S_IFDIR:
                    pending.append(node)

    def _add_candidates(self, again: Collection[Node]) -> None:
        """Inodes that were named without a name in the tree."""
        found, wanted = self._scan.found, dict.fromkeys(again)
        for inode in (*self._scan.written, *self._noted.changed):
            if node := self._known.get(inode):
                wanted[node] = None
        places = []
        for node in wanted:
            if node is self._root:
                found.setdefault(node.inode, Found(node, os.fstat(self._directories.root_fd), node, "."))
            elif node.inode not in found and (place := self._place(node)) and self._alive(place[0]):
                places.append((place[0].id, place, node))
        for _, (parent, name), node in sorted(places, key=lambda one: one[0]):
            try:
                status = os.stat(name, dir_fd=self._directories.fd(parent), follow_symlinks=False)
                if (status.st_ino, stat.S_IFMT(status.st_mode)) != (node.inode, node.kind):
                    raise FileNotFoundError(errno.ENOENT, "replaced", name)
            except OSError as exc:
                if exc.errno not in tree_scan.GONE:
                    raise StorageError(f"{self._directories.path(parent, name)} in the writable layer: {exc}") from exc
                if self._frozen:
                    raise tree_scan.moved(self._directories.path(parent, name)) from exc
                continue  # it is named by the next events
            found[node.inode] = Found(node, status, parent, name)
