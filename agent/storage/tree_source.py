"""The sending side of `tree`: what changed in a writable layer since the previous round, as frames."""

from __future__ import annotations

import errno
import logging
import os
import stat
import time
from collections.abc import Collection, Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from agent.errors import StorageError, WrongState
from agent.storage import tree_records, tree_scan
from agent.storage.tree_records import BLOCK_BYTES, Op
from agent.storage.tree_rescan import NotClear, Rescan
from agent.storage.tree_scan import Directories, Found, Node, Scan
from agent.storage.tree_watch import TreeWatch

_log = logging.getLogger(__name__)
# Timestamps come from a clock that ticks every 1 to 10 ms: two changes within a tick look alike.
_CLOCK_MARGIN_NS = 50_000_000
_FILE = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOATIME
_PATH = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_UNMOVABLE = {
    "trusted.overlay.redirect": "redirect_dir=off",
    "trusted.overlay.metacopy": "metacopy=off",
}


@dataclass(slots=True)
class _State:
    """What the target has, once it has applied all frames so far."""

    nodes: dict[int, Node] = field(default_factory=dict)  # by inode number; their names are in them
    names: int = 0
    total: int = 0  # the digest
    last_id: int = tree_records.ROOT_ID
    again: set[Node] = field(default_factory=set)  # whose times prove nothing yet, or that could not be read
    writer: tree_records.FrameWriter = field(default_factory=tree_records.FrameWriter)

    def new_id(self) -> int:
        self.last_id += 1
        return self.last_id


class TreeSource:
    """The writable layer at `root`, an overlay's upper directory as the host sees it. For one move; not for two threads."""

    def __init__(self, root: Path | int, *, watch: bool = False) -> None:
        """`root`: or a descriptor of it, which stays the caller's. `watch`: let the kernel tell what changes between the rounds, where
        it will; else each round looks at everything.
        """
        self._root = root
        self._state = _State()
        self._round = 0
        self._complete = False  # whether the last look at everything has seen everything
        self._spent = ""
        self._watch = self._begin_watch() if watch else None

    @property
    def watched(self) -> bool:
        """Whether a round costs what has changed, and not what is there."""
        return self._watch is not None

    def close(self) -> None:
        """Idempotent. No round can follow."""
        if self._watch:
            self._watch.close()
            self._watch = None
        self._spent = self._spent or "this tree was closed"

    def delta(
        self,
        always: Collection[tuple[int, int]] = (),
        perhaps: Collection[tuple[int, int]] = (),
        *,
        still: bool = False,
        last: bool = False,
    ) -> Iterator[bytes | memoryview]:
        """Frames of at most 1 MiB that bring the target from the previous call's state to the present one.

        `always`: (st_dev, st_ino) of files whose times prove nothing, such as those mapped shared and writable; as lstat
        on the upper directory gives them, not as the container sees them. Their contents are read again; the blocks
        that differ are sent. `perhaps`: of files whose change the kernel need not have named. `still`: the container's
        tasks do not run, so what is read stays so, though somebody else may change names. `last`: nobody writes any
        more, so a change under our hands is an error, not the next round's work. Every frame must reach the target, in
        this order. After an exception or an unfinished iteration the source is spent.
        """
        if self._spent:
            raise WrongState(self._spent, hint="begin again with a new source and an empty target")
        self._spent = "a round of this tree was not sent to its end"
        self._round += 1
        try:
            directories = Directories(self._root)
        except OSError as exc:
            raise StorageError(f"cannot read the writable layer {self._root}: {exc.strerror}") from exc
        try:
            # The device is not compared: one inode too many costs a read, one too few would cost the data.
            scan = self._look(directories, {inode for _, inode in always}, {inode for _, inode in perhaps}, frozen=last)
            yield from _Round(self._state, self._round, directories, scan, still=still, last=last).frames()
        except OSError as exc:
            raise StorageError(f"cannot read the writable layer {self._root}: {exc}") from exc
        finally:
            directories.close()
        self._spent = "the last round of this tree has been sent" if last else ""

    def digest(self) -> str:
        """Of the tree as the frames so far describe it: equal to what TreeTarget.finish returns."""
        return f"{self._state.total:032x}"

    def _begin_watch(self) -> TreeWatch | None:
        try:
            directories = Directories(self._root)
        except OSError as exc:
            raise StorageError(f"cannot read the writable layer {self._root}: {exc.strerror}") from exc
        try:
            return TreeWatch(directories.root_fd)
        except OSError as exc:
            _log.warning("what changes in %s is found by looking at everything: %s", self._root, exc)
            return None
        finally:
            directories.close()

    def _look(self, directories: Directories, always: set[int], perhaps: set[int], *, frozen: bool) -> Scan:
        state = self._state
        if self._watch:
            noted = self._watch.take()
            noted.changed |= perhaps
            if self._complete and not noted.lost:
                look = Rescan(self._watch, noted, directories, state.nodes, state.new_id, frozen=frozen)
                try:
                    return look.run(state.again, always)
                except NotClear as exc:
                    # Names that were read one after the other, while directories moved: looked at as one whole they make sense.
                    _log.info("the tree %s is looked at whole: %s", self._root, exc)
                    directories.forget()
            always = always | noted.written
        scan = tree_scan.scan(directories, state.nodes, state.new_id, frozen=frozen)
        scan.written, self._complete = always, scan.complete
        return scan


class _Round:
    def __init__(
        self, state: _State, number: int, directories: Directories, scan: Scan, *, still: bool, last: bool
    ) -> None:
        self._state, self._number, self._directories, self._scan = state, number, directories, scan
        self._frozen, self._still = last, still or last
        self._writer = state.writer
        self._touched: dict[
            int, Node
        ] = {}  # directories whose entries we change on the target, which changes their times

    def frames(self) -> Iterator[memoryview]:
        state = self._state
        before, state.again = state.again, set()
        yield from self._removals()
        yield from self._additions()
        others = [found for found in self._scan.found.values() if found.node.sent != self._number]
        for found in others:
            if found.node.kind != stat.S_IFDIR and self._changed(found):
                yield from self._inode(found)
        for node in self._touched.values():
            if node.inode not in self._scan.found and (node.places or node.id == tree_records.ROOT_ID):
                others.extend(self._directory(node))
        for found in others:  # last: nothing changes their times after this
            if found.node.kind == stat.S_IFDIR and (found.node.id in self._touched or self._changed(found)):
                yield from self._inode(found)
        for node in before:  # not found this time: it went, or the next round finds it
            if (
                node.sent != self._number
                and (node.places or node.id == tree_records.ROOT_ID)
                and (node.racy or node.signature is None)
            ):
                state.again.add(node)
        end = (self._number, self._frozen, state.names, state.total.to_bytes(16, "little"))
        self._writer.add(Op.END, tree_records.END.pack(*end))
        self._writer.flush()
        yield from self._writer.take()

    # ------------------------------------------------------------------ names

    def _removals(self) -> Iterator[memoryview]:
        """Names that are gone or lead elsewhere now, children before parents."""
        state, kept = self._state, {node for _, _, node in self._scan.added}
        for parent, name, node in sorted(self._scan.removed, key=lambda entry: _depth(entry[0]), reverse=True):
            self._touched[parent.id] = parent
            del parent.children[name]
            node.places.remove((parent, name))
            state.names -= 1
            encoded = os.fsencode(name)
            keep = bool(node.places) or node in kept
            self._writer.add(Op.UNLINK, tree_records.UNLINK.pack(node.id, parent.id, keep), encoded)
            state.total = tree_records.add(state.total, minus=tree_records.hash_entry(node.id, parent.id, encoded))
            if not keep:
                state.total = tree_records.add(state.total, minus=node.digest)
                if state.nodes.get(node.inode) is node:
                    del state.nodes[node.inode]
            yield from self._writer.take()

    def _additions(self) -> Iterator[memoryview]:
        """New names, parents before children; new files with all that is in them."""
        state = self._state
        for inode, found in self._scan.found.items():
            state.nodes[inode] = found.node
        for parent, name, node in self._scan.added:
            self._touched[parent.id] = parent
            parent.children[name] = node
            node.places.append((parent, name))
            state.names += 1
            encoded = os.fsencode(name)
            state.total = tree_records.add(state.total, plus=tree_records.hash_entry(node.id, parent.id, encoded))
            if node.created:
                # A directory that moves to another parent gets a new time on some file systems.
                self._touched[node.id] = node
                self._writer.add(Op.LINK, tree_records.LINK.pack(node.id, parent.id), encoded)
            else:
                node.created = True
                found = self._scan.found[node.inode]
                head = tree_records.CREATE.pack(node.id, parent.id, found.status.st_mode, node.rdev, len(encoded))
                self._writer.add(Op.CREATE, head, encoded, node.link)
                if node.kind != stat.S_IFDIR:
                    yield from self._inode(found)
            yield from self._writer.take()

    # ------------------------------------------------------------------ inodes

    def _changed(self, found: Found) -> bool:
        node = found.node
        known = node.signature
        if known is None or self._must_read(node):
            return True
        now = tree_scan.signature(found.status)
        # A mere read is worth a record only once, in the end.
        return now != known if self._frozen else now[:-1] != known[:-1]

    def _inode(self, found: Found) -> Iterator[memoryview]:
        node = found.node
        node.sent = self._number
        try:
            if node.kind == stat.S_IFREG:
                yield from self._file(found)
            elif node.kind == stat.S_IFDIR:
                fd = self._directories.fd(node)
                self._meta(found, found.status, fd, self._scan.started_unix_ns)
            else:
                fd = self._open(found, _PATH)
                try:
                    # For a descriptor made with O_PATH this leads to the inode itself, a symbolic link too.
                    self._meta(found, found.status, f"/proc/self/fd/{fd}", self._scan.started_unix_ns)
                finally:
                    os.close(fd)
        except OSError as exc:
            if self._frozen or exc.errno not in tree_scan.GONE:
                raise StorageError(f"{self._path(found)} in the writable layer: {exc.strerror}") from exc
            self._look_again(node)  # it went or moved: the next round tells
        yield from self._writer.take()

    def _file(self, found: Found) -> Iterator[memoryview]:
        node = found.node
        # Not straight away: opening what has become a device in the meantime may do things.
        path_fd = self._open(found, _PATH)
        try:
            fd = os.open(f"/proc/self/fd/{path_fd}", _FILE)
        finally:
            os.close(path_fd)
        try:
            began_unix_ns = time.time_ns()
            status = os.fstat(fd)
            blocks = node.blocks = node.blocks or tree_records.Blocks()
            complete = True
            if self._content_may_differ(node, status):
                if status.st_size != blocks.size:
                    self._writer.add(Op.SIZE, tree_records.SIZE.pack(node.id, status.st_size))
                    blocks.resize(status.st_size)
                complete = yield from self._blocks(node.id, fd, blocks)
            self._meta(found, status, fd, began_unix_ns)
            if not complete:
                self._look_again(node)
            if self._frozen:
                after = os.fstat(fd)
                if not complete or tree_scan.signature(after)[:-1] != tree_scan.signature(status)[:-1]:
                    raise tree_scan.moved(self._path(found))
        finally:
            os.close(fd)

    def _content_may_differ(self, node: Node, status: os.stat_result) -> bool:
        return (
            self._must_read(node) or node.signature is None or tree_scan.signature(status)[:-1] != node.signature[:-1]
        )

    def _must_read(self, node: Node) -> bool:
        return node.racy or node.inode in self._scan.written

    def _blocks(self, node_id: int, fd: int, blocks: tree_records.Blocks) -> Generator[memoryview, None, bool]:
        """Send the blocks that differ from what the target has. False: the file shrank meanwhile; what was sent is right."""
        writer = self._writer
        present = set()
        for index, extents in _by_block(_data_extents(fd, blocks.size)):
            size = tree_records.block_size(extents)
            body = writer.reserve(size)
            start = tree_records.pack_block_head(body, node_id, index, extents)
            for offset, length in extents:
                if os.preadv(fd, [body[start : start + length]], index * BLOCK_BYTES + offset) != length:
                    return False
                start += length
            value = tree_records.hash_block(body, index)
            if blocks.hashes.get(index) != value:
                writer.commit(Op.BLOCK, size)
                blocks.put(index, value)
                if writer.ready:
                    yield from writer.take()
            present.add(index)
        for first, count in _runs(sorted(blocks.hashes.keys() - present)):
            writer.add(Op.HOLES, tree_records.HOLES.pack(node_id, first, count))
            blocks.drop(range(first, first + count))
            yield from writer.take()
        return True

    def _meta(self, found: Found, status: os.stat_result, where: int | str, looked_unix_ns: int) -> None:
        """XATTR and META. `looked_unix_ns`: when `status` was read, or before."""
        node = found.node
        xattrs = self._xattrs(found, where)
        for key, value in xattrs:
            name = os.fsencode(key)
            self._writer.add(Op.XATTR, tree_records.XATTR.pack(node.id, len(name)), name, value)
        times = (*divmod(status.st_atime_ns, 10**9), *divmod(status.st_mtime_ns, 10**9))
        meta = (node.id, status.st_mode, status.st_uid, status.st_gid, *times)
        self._writer.add(Op.META, tree_records.META.pack(*meta))
        content = node.blocks.content if node.blocks else 0
        digest = tree_records.hash_node(node.id, status, node.link, xattrs, content)
        self._state.total = tree_records.add(self._state.total, plus=digest, minus=node.digest)
        node.digest = digest
        node.signature = tree_scan.signature(status)
        node.racy = not self._still and status.st_ctime_ns > looked_unix_ns - _CLOCK_MARGIN_NS
        if node.racy:
            self._state.again.add(node)

    def _look_again(self, node: Node) -> None:
        node.signature = None
        self._state.again.add(node)

    def _xattrs(self, found: Found, where: int | str) -> list[tuple[str, bytes]]:
        try:
            names = os.listxattr(where)
        except OSError as exc:
            if exc.errno == errno.ENOTSUP:
                return []
            raise
        xattrs = []
        for name in names:
            if name in _UNMOVABLE:
                raise StorageError(
                    f"{self._path(found)} in the writable layer carries {name}, which means nothing on another host",
                    hint=f"only layers of overlays mounted with {_UNMOVABLE[name]} can move",
                )
            if name in tree_records.PRIVATE_XATTRS:
                continue
            try:
                xattrs.append((name, os.getxattr(where, name)))
            except OSError as exc:
                if exc.errno != errno.ENODATA or self._frozen:
                    raise
        return xattrs

    def _open(self, found: Found, flags: int) -> int:
        """The inode itself; raises FileNotFoundError when its name leads to another one now."""
        fd = os.open(found.name, flags, dir_fd=self._directories.fd(found.parent))
        status = os.fstat(fd)
        if status.st_ino != found.node.inode or stat.S_IFMT(status.st_mode) != found.node.kind:
            os.close(fd)
            raise FileNotFoundError(errno.ENOENT, "replaced", found.name)
        return fd

    def _directory(self, node: Node) -> Iterator[Found]:
        """Of one whose entries changed, though it was not looked at itself. None when it has gone since."""
        parent, name = node.places[0] if node.places else (node, ".")
        try:
            yield Found(node, os.fstat(self._directories.fd(node)), parent, name)
        except OSError as exc:
            if self._frozen or exc.errno not in tree_scan.GONE:
                raise
            self._look_again(node)

    def _path(self, found: Found) -> str:
        return self._directories.path(found.parent, found.name)


def _depth(node: Node) -> int:
    """Of a directory, as the target has it."""
    depth = 0
    while node.places:
        node = node.places[0][0]
        depth += 1
    return depth


def _data_extents(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """(start, end) of what is not a hole."""
    position = 0
    while position < size:
        try:
            start = os.lseek(fd, position, os.SEEK_DATA)
            position = min(os.lseek(fd, start, os.SEEK_HOLE), size)
        except OSError as exc:
            if exc.errno == errno.ENXIO:  # no data behind this
                return
            raise
        if start < position:
            yield start, position


def _by_block(extents: Iterator[tuple[int, int]]) -> Iterator[tuple[int, list[tuple[int, int]]]]:
    """(index, [(offset in the block, length)]) of the blocks that hold data."""
    index, parts = -1, list[tuple[int, int]]()
    for start, end in extents:
        while start < end:
            stop = min(end, (start // BLOCK_BYTES + 1) * BLOCK_BYTES)
            if start // BLOCK_BYTES != index:
                if parts:
                    yield index, parts
                index, parts = start // BLOCK_BYTES, []
            parts.append((start % BLOCK_BYTES, stop - start))
            start = stop
    if parts:
        yield index, parts


def _runs(indexes: list[int]) -> Iterator[tuple[int, int]]:
    """(first, count) of consecutive numbers."""
    first = count = 0
    for index in indexes:
        if count and index == first + count:
            count += 1
            continue
        if count:
            yield first, count
        first, count = index, 1
    if count:
        yield first, count
