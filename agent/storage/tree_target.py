"""The receiving side of `tree`: rebuilds a writable layer from frames.

Names come from the wire, paths never do: every name is one component under a directory that this object made itself, and no
link is followed. What the last round's record says of the whole tree must be what came out, or the tree is refused.
"""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

from agent.errors import StorageError, TransferError
from agent.linux import remove
from agent.storage import rawfs, tree_records
from agent.storage.tree_records import BLOCK_BYTES, ROOT_ID, Op

_OPEN_DIRECTORIES = 256
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CREATE = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_STAGE_ID = 0  # not an id of the wire: where inodes wait between losing their last name and getting a new one
_MAX_NAME = 255


class _Node:
    __slots__ = ("blocks", "digest", "kind", "link", "places")

    def __init__(self, kind: int, link: bytes) -> None:
        self.kind = kind
        self.link = link
        self.places: list[tuple[int, bytes]] = []  # (directory's id, name): a directory has one, a file at least one
        self.digest = 0
        self.blocks = tree_records.Blocks()


class TreeTarget:
    """Rebuilds a tree in `root`, an empty directory; needs root's rights for what only root can make. Not for two threads."""

    def __init__(self, root: Path) -> None:
        self._stage_path = root.with_name(f".{root.name}.moving")
        try:
            if any(root.iterdir()):
                raise StorageError(f"{root} is not empty, so no tree can be rebuilt there", hint="remove what is in it")
            self._root_fd = os.open(root, _DIRECTORY)
            if self._stage_path.exists():  # of a process that died here
                remove.tree(self._stage_path)
            self._stage_path.mkdir(mode=0o700)
            self._stage_fd = os.open(self._stage_path, _DIRECTORY)
        except OSError as exc:
            raise StorageError(f"cannot rebuild a tree in {root}: {exc}") from exc
        self._nodes: dict[int, _Node] = {ROOT_ID: _Node(stat.S_IFDIR, b"")}
        self._directories: OrderedDict[int, int] = OrderedDict()  # descriptors; they stay right whatever is renamed
        self._current: tuple[int, int] | None = None  # (id, descriptor) of the file that is being written
        self._xattrs: tuple[int, dict[str, bytes]] = (0, {})
        self._sequence = 0
        self._round = 0
        self._entries = 0
        self._total = 0
        self._staged = 0
        self._finished = False
        self._closed = False
        self._operations: dict[Op, Callable[[memoryview], None]] = {
            Op.CREATE: self._create,
            Op.LINK: self._link,
            Op.UNLINK: self._unlink,
            Op.SIZE: self._size,
            Op.BLOCK: self._block,
            Op.HOLES: self._holes,
            Op.XATTR: self._xattr,
            Op.META: self._meta,
            Op.END: self._end,
        }

    def apply(self, frame: bytes | memoryview) -> None:
        """Do what the next frame says. Raises TransferError for a frame that makes no sense, StorageError for a failing disk."""
        if self._closed or self._finished:
            raise TransferError("a frame of the writable layer came after its last round")
        try:
            for op, body in tree_records.records(frame, self._sequence):
                self._operations[op](body)
        except (struct.error, KeyError, UnicodeError, ValueError, OverflowError) as exc:
            raise TransferError(f"frame {self._sequence} of the writable layer makes no sense: {exc!r}") from exc
        except OSError as exc:
            raise StorageError(f"cannot rebuild the writable layer: {exc}", hint="is the disk full?") from exc
        self._sequence += 1

    def finish(self) -> str:
        """Check that the last round came to its end; returns the digest, TreeSource.digest's counterpart."""
        if not self._finished:
            raise TransferError(f"the writable layer stopped after round {self._round}, which was not the last")
        self.close()
        return f"{self._total:032x}"

    def close(self) -> None:
        """Let go of everything but the tree. Idempotent; without `finish`, the caller removes the half-made tree."""
        if self._closed:
            return
        self._closed = True
        self._let_go()
        for fd in (*self._directories.values(), self._root_fd, self._stage_fd):
            os.close(fd)
        self._directories.clear()
        try:
            remove.tree(self._stage_path)
        except OSError:
            pass  # it is in the container's directory, which goes one day; the tree is what counts now

    # ------------------------------------------------------------------ names

    def _create(self, body: memoryview) -> None:
        node_id, parent, mode, rdev, name_length = tree_records.CREATE.unpack_from(body)
        rest = bytes(body[tree_records.CREATE.size :])
        name, link = _name(rest[:name_length]), rest[name_length:]
        if node_id in self._nodes or node_id == _STAGE_ID or len(rest) < name_length:
            raise TransferError(f"inode {node_id} of the writable layer is made twice")
        kind = stat.S_IFMT(mode)
        directory = self._parent(parent)
        if kind == stat.S_IFREG:
            self._let_go()
            self._current = (node_id, os.open(name, _CREATE, 0o600, dir_fd=directory))
        elif kind == stat.S_IFDIR:
            os.mkdir(name, 0o700, dir_fd=directory)
        elif kind == stat.S_IFLNK:
            os.symlink(link, name, dir_fd=directory)
        elif kind in (stat.S_IFCHR, stat.S_IFBLK, stat.S_IFIFO, stat.S_IFSOCK):
            os.mknod(name, kind | 0o600, rdev, dir_fd=directory)
        else:
            raise TransferError(f"inode {node_id} of the writable layer has the mode {mode:o}")
        node = self._nodes[node_id] = _Node(kind, link)
        node.places.append((parent, name))
        self._count(node_id, parent, name, 1)

    def _link(self, body: memoryview) -> None:
        node_id, parent = tree_records.LINK.unpack_from(body)
        name = _name(bytes(body[tree_records.LINK.size :]))
        node = self._nodes[node_id]
        old_parent, old_name = node.places[0]
        directory = self._parent(parent)
        if old_parent == _STAGE_ID:
            os.rename(old_name, name, src_dir_fd=self._stage_fd, dst_dir_fd=directory)
            node.places.clear()
            self._staged -= 1
        elif node.kind == stat.S_IFDIR:
            raise TransferError(f"directory {node_id} of the writable layer gets a second name")
        else:
            ours = os.dup(directory)  # looking for the other directory may close it
            try:
                source = self._directory(old_parent)
                os.link(old_name, name, src_dir_fd=source, dst_dir_fd=ours, follow_symlinks=False)
            finally:
                os.close(ours)
        node.places.append((parent, name))
        self._count(node_id, parent, name, 1)

    def _unlink(self, body: memoryview) -> None:
        node_id, parent, keep = tree_records.UNLINK.unpack_from(body)
        name = _name(bytes(body[tree_records.UNLINK.size :]))
        node = self._nodes[node_id]
        directory = self._parent(parent)
        node.places.remove((parent, name))  # ValueError: it has no such name
        if keep and not node.places:
            waiting = str(node_id).encode()
            os.rename(name, waiting, src_dir_fd=directory, dst_dir_fd=self._stage_fd)
            node.places.append((_STAGE_ID, waiting))
            self._staged += 1
        elif node.kind == stat.S_IFDIR:
            os.rmdir(name, dir_fd=directory)
        else:
            os.unlink(name, dir_fd=directory)
        if not node.places:
            self._forget(node_id)
        self._count(node_id, parent, name, -1)

    def _forget(self, node_id: int) -> None:
        node = self._nodes.pop(node_id)
        self._total = tree_records.add(self._total, minus=node.digest)
        if node_id in self._directories:
            os.close(self._directories.pop(node_id))
        if self._current and self._current[0] == node_id:
            self._let_go()

    def _count(self, node_id: int, parent: int, name: bytes, sign: int) -> None:
        self._entries += sign
        self._total = tree_records.add(self._total, plus=sign * tree_records.hash_entry(node_id, parent, name))

    # ------------------------------------------------------------------ contents

    def _size(self, body: memoryview) -> None:
        node_id, size = tree_records.SIZE.unpack(body)
        os.ftruncate(self._file(node_id), size)
        self._nodes[node_id].blocks.resize(size)

    def _block(self, body: memoryview) -> None:
        node_id, index = tree_records.BLOCK.unpack_from(body)
        fd, blocks = self._file(node_id), self._nodes[node_id].blocks
        start = index * BLOCK_BYTES
        end = start + BLOCK_BYTES
        position, had_data = start, index in blocks.hashes
        for offset, data in tree_records.unpack_block(body):
            if start + offset + len(data) > blocks.size:
                raise TransferError(f"block {index} of inode {node_id} ends behind its file")
            if had_data and start + offset > position:
                rawfs.punch_hole(fd, position, start + offset - position)
            position = start + offset
            while data:
                written = os.pwrite(fd, data, position)
                position += written
                data = data[written:]
        # To the block's end even behind the file's: of a page that is punched in part only, the rest stays as data.
        if had_data and end > position and position < blocks.size:
            rawfs.punch_hole(fd, position, end - position)
        blocks.put(index, tree_records.hash_block(body, index))

    def _holes(self, body: memoryview) -> None:
        node_id, first, count = tree_records.HOLES.unpack(body)
        fd, blocks = self._file(node_id), self._nodes[node_id].blocks
        start, end = first * BLOCK_BYTES, (first + count) * BLOCK_BYTES
        if start < blocks.size:  # as in _block, the end may be behind the file's
            rawfs.punch_hole(fd, start, end - start)
        blocks.drop([index for index in blocks.hashes if first <= index < first + count])

    # ------------------------------------------------------------------ metadata

    def _xattr(self, body: memoryview) -> None:
        node_id, name_length = tree_records.XATTR.unpack_from(body)
        rest = body[tree_records.XATTR.size :]
        name = os.fsdecode(bytes(rest[:name_length]))
        if name in tree_records.PRIVATE_XATTRS:
            raise TransferError(f"the writable layer brings {name}, which belongs to one host")
        if self._xattrs[0] != node_id:
            self._xattrs = (node_id, {})
        self._xattrs[1][name] = bytes(rest[name_length:])

    def _meta(self, body: memoryview) -> None:
        node_id, mode, uid, gid, atime, atime_ns, mtime, mtime_ns = tree_records.META.unpack(body)
        xattrs = self._xattrs[1] if self._xattrs[0] == node_id else {}
        self._xattrs = (0, {})
        node = self._nodes[node_id]
        if stat.S_IFMT(mode) != node.kind:
            raise TransferError(f"inode {node_id} of the writable layer turns from {node.kind:o} into {mode:o}")
        times = (atime * 10**9 + atime_ns, mtime * 10**9 + mtime_ns)
        if node.kind == stat.S_IFREG:
            status = _describe(self._file(node_id), mode, uid, gid, times, xattrs)
        elif node.kind == stat.S_IFDIR:
            status = _describe(self._directory(node_id), mode, uid, gid, times, xattrs)
        else:
            parent, name = node.places[0]
            status = _describe_special(self._directory(parent), name, mode, uid, gid, times, xattrs)
        digest = tree_records.hash_node(node_id, status, node.link, xattrs.items(), node.blocks.content)
        self._total = tree_records.add(self._total, plus=digest, minus=node.digest)
        node.digest = digest

    def _end(self, body: memoryview) -> None:
        number, last, entries, digest = tree_records.END.unpack(body)
        self._let_go()
        self._round += 1
        if number != self._round:
            raise TransferError(f"round {number} of the writable layer ends where round {self._round} was due")
        if self._staged:
            raise TransferError(f"{self._staged} inodes of the writable layer have lost their names")
        if entries != self._entries or int.from_bytes(digest, "little") != self._total:
            raise TransferError(
                f"after round {number} the writable layer has {self._entries} names and the digest {self._total:032x}, "
                f"the source has {entries} and {int.from_bytes(digest, 'little'):032x}",
                hint="begin the move again; if this repeats, one of the disks returns other bytes than were written",
            )
        self._finished = bool(last)

    # ------------------------------------------------------------------ descriptors

    def _file(self, node_id: int) -> int:
        if self._current and self._current[0] == node_id:
            return self._current[1]
        self._let_go()
        node = self._nodes[node_id]
        if node.kind != stat.S_IFREG:
            raise TransferError(f"inode {node_id} of the writable layer is no file")
        parent, name = node.places[0]
        fd = os.open(name, _FILE, dir_fd=self._directory(parent))
        self._current = (node_id, fd)
        return fd

    def _let_go(self) -> None:
        if self._current:
            os.close(self._current[1])
            self._current = None

    def _parent(self, node_id: int) -> int:
        """The descriptor of a directory that the wire names; good until the next call."""
        if node_id == _STAGE_ID:
            raise TransferError(f"the writable layer has no directory {node_id}")
        return self._directory(node_id)

    def _directory(self, node_id: int) -> int:
        """Ours, and good until the next call."""
        missing = []
        while (fd := self._known_directory(node_id)) is None:
            node = self._nodes[node_id]
            if node.kind != stat.S_IFDIR:
                raise TransferError(f"inode {node_id} of the writable layer is no directory")
            missing.append((node_id, node.places[0][1]))
            node_id = node.places[0][0]
        for node_id, name in reversed(missing):
            fd = self._directories[node_id] = os.open(name, _DIRECTORY, dir_fd=fd)
            if len(self._directories) > _OPEN_DIRECTORIES:
                os.close(self._directories.popitem(last=False)[1])
        return fd

    def _known_directory(self, node_id: int) -> int | None:
        if node_id == ROOT_ID:
            return self._root_fd
        if node_id == _STAGE_ID:
            return self._stage_fd
        fd = self._directories.get(node_id)
        if fd is not None:
            self._directories.move_to_end(node_id)
        return fd


def _name(name: bytes) -> bytes:
    if not 0 < len(name) <= _MAX_NAME or name in (b".", b"..") or b"/" in name or b"\0" in name:
        raise TransferError(f"the writable layer brings the name {name!r}")
    return name


def _describe(
    fd: int, mode: int, uid: int, gid: int, times: tuple[int, int], xattrs: dict[str, bytes]
) -> os.stat_result:
    """Owner first: changing it clears setuid and capabilities. Returns what the file system has made of it."""
    status = os.fstat(fd)
    if (status.st_uid, status.st_gid) != (uid, gid):
        os.fchown(fd, uid, gid)
        status = os.fstat(fd)
    if status.st_mode != mode:
        os.fchmod(fd, stat.S_IMODE(mode))
    _set_xattrs(fd, xattrs, follow=True)
    os.utime(fd, ns=times)
    return os.fstat(fd)


def _describe_special(
    directory: int, name: bytes, mode: int, uid: int, gid: int, times: tuple[int, int], xattrs: dict[str, bytes]
) -> os.stat_result:
    os.chown(name, uid, gid, dir_fd=directory, follow_symlinks=False)
    if not stat.S_ISLNK(mode):
        os.chmod(name, stat.S_IMODE(mode), dir_fd=directory)
    _set_xattrs(b"/proc/self/fd/%d/%b" % (directory, name), xattrs, follow=False)
    os.utime(name, ns=times, dir_fd=directory, follow_symlinks=False)
    return os.stat(name, dir_fd=directory, follow_symlinks=False)


def _set_xattrs(where: int | bytes, xattrs: dict[str, bytes], *, follow: bool) -> None:
    """Exactly these, except what the host insists on."""
    try:
        present = set(os.listxattr(where, follow_symlinks=follow))
    except OSError as exc:
        if exc.errno != errno.ENOTSUP or xattrs:
            raise
        return
    for name in present - xattrs.keys() - tree_records.HOST_XATTRS:
        os.removexattr(where, name, follow_symlinks=follow)
    for name, value in xattrs.items():
        if name not in present or os.getxattr(where, name, follow_symlinks=follow) != value:
            os.setxattr(where, name, value, follow_symlinks=follow)
