"""Which names and inodes of a tree may have changed since one last asked: the kernel says so as it happens (fanotify).

The mark is on the file system that holds the tree, for it sees a write through any mount, through another name, through a descriptor of
a file that has none, and what overlayfs does to its upper directory. So it tells of the rest of that file system too: that is left out
when the directory is not one of the tree's.

What makes it complete: names change by create, link, unlink, rename, mkdir, mknod, symlink (events of the directory); metadata by chmod,
chown, utimes, setxattr (ATTRIB); contents by calls (MODIFY) or unsaid: through a mapping, by AIO, by what is spliced into a file of an
overlay. Those need an open file description, or a mapping that holds one, and its end is CLOSE_WRITE. So a file whose contents may differ
had MODIFY, or CLOSE_WRITE, or is still held by a task: agent/handover/inside.py finds these (Held) when all stand still. Events are queued
by the system call itself: of tasks that stand still, none is on its way. A queue that ran over says so, and then all is looked at.
"""

from __future__ import annotations

import errno
import logging
import os
import select
import threading
import time
from dataclasses import dataclass, field

from agent.linux import fanotify

_MASK = (
    fanotify.MODIFY | fanotify.ATTRIB | fanotify.CLOSE_WRITE | fanotify.CREATE | fanotify.DELETE | fanotify.ONDIR
    | fanotify.MOVED_FROM | fanotify.MOVED_TO
)  # fmt: skip
_WRITTEN = fanotify.MODIFY | fanotify.CLOSE_WRITE
_READ_BYTES = 1 << 20
_PAUSE_S = 0.05  # the queue merges what is equal: a busy file is one event when it is read less often
_CACHED_HANDLES = 1 << 16
_BEING_MADE_S = 0.05
_GONE = (errno.ESTALE, errno.ENOENT)
_log = logging.getLogger(__name__)


@dataclass(slots=True)
class Noted:
    """`names`: by the inode number of a directory, which may be none of the tree's. `written`: inodes whose contents may differ; `changed`:
    whose metadata may. `handles`: to open those directories, whatever their path is now. `lost`: anything may have changed.
    """

    lost: bool = False
    names: dict[int, set[str]] = field(default_factory=dict)
    handles: dict[int, list[bytes]] = field(default_factory=dict)
    written: set[int] = field(default_factory=set)
    changed: set[int] = field(default_factory=set)


class TreeWatch:
    """From its making on nothing on the file system of `directory_fd` changes unnoted. One thread reads, any may take."""

    def __init__(self, directory_fd: int) -> None:
        """`directory_fd`: stays the caller's. Raises OSError where the kernel, its age or our rights do not allow it."""
        self._mount_fd = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=directory_fd)
        self._fd = self._wake = -1
        try:
            self._fd = fanotify.group()
            fanotify.watch_file_system(self._fd, _MASK, f"/proc/self/fd/{self._mount_fd}")
            self._wake = os.eventfd(0, os.EFD_CLOEXEC)
        except OSError:
            self._close_all()
            raise
        self._guard = threading.Lock()
        self._lost = False
        self._names: dict[bytes, set[bytes]] = {}
        self._written: set[bytes] = set()
        self._changed: set[bytes] = set()
        self._inodes: dict[bytes, int] = {}  # of directories that events were in
        self._thread = threading.Thread(target=self._read_on, name="tree-watch", daemon=True)
        self._thread.start()

    def take(self) -> Noted:
        """All that was noted since the last call, and is now forgotten here."""
        with self._guard:
            self._drain()
            lost, self._lost = self._lost, False
            names, self._names = self._names, {}
            written, self._written = self._written, set()
            changed, self._changed = self._changed, set()
        if lost:
            return Noted(lost=True)
        try:
            return self._resolve(names, written, changed)
        except OSError as exc:  # not "it is gone": what it names may have changed, and cannot be found by it
            _log.warning("a handle does not open, so all is looked at: %s", exc)
            return Noted(lost=True)

    def open_directory(self, noted: Noted, inode: int, flags: int) -> int:
        """A descriptor of that directory. Raises FileNotFoundError when it is gone."""
        for handle in noted.handles[inode]:
            try:
                fd = self._open(handle, flags)
            except OSError as exc:
                if exc.errno in (*_GONE, errno.ENOTDIR):
                    continue
                raise
            if os.fstat(fd).st_ino == inode:
                return fd
            os.close(fd)
        raise FileNotFoundError(errno.ENOENT, "the directory is gone")

    def close(self) -> None:
        """Idempotent."""
        if self._fd >= 0:
            os.eventfd_write(self._wake, 1)
            self._thread.join()
            self._close_all()

    # ------------------------------------------------------------ reading

    def _read_on(self) -> None:
        poller = select.poll()
        for fd in (self._fd, self._wake):
            poller.register(fd, select.POLLIN)
        while True:
            ready = poller.poll()
            if any(fd == self._wake for fd, _ in ready):
                return
            with self._guard:
                self._drain()
            time.sleep(_PAUSE_S)

    def _drain(self) -> None:
        try:
            while buffer := os.read(self._fd, _READ_BYTES):
                for event in fanotify.events(buffer):
                    self._note(event)
        except BlockingIOError:
            return
        except OSError as exc:  # an event of a kernel that we do not understand
            _log.warning("events of files were lost: %s", exc)
            self._lost = True

    def _note(self, event: fanotify.Event) -> None:
        if event.mask & fanotify.OVERFLOW:
            self._lost = True
            return
        if event.directory:
            self._names.setdefault(event.directory, set()).add(event.name)
        if event.file:
            (self._written if event.mask & _WRITTEN else self._changed).add(event.file)

    # ------------------------------------------------------------ handles

    def _resolve(self, names: dict[bytes, set[bytes]], written: set[bytes], changed: set[bytes]) -> Noted:
        noted = Noted()
        for handle, inner in names.items():
            inode = self._directory(handle)
            if inode:
                noted.names.setdefault(inode, set()).update(map(os.fsdecode, inner))
                noted.handles.setdefault(inode, []).append(handle)
        noted.written = self._numbers(written)
        noted.changed = self._numbers(changed - written)
        return noted

    def _open(self, handle: bytes, flags: int) -> int:
        """A descriptor of what the handle names. An inode whose number is being given to a new file at this moment is "no memory" to the
        kernel (iget_locked() has one answer for both): an instant later it is a stale handle, for the new one has another generation.
        """
        deadline = time.monotonic() + _BEING_MADE_S
        while True:
            try:
                return fanotify.open_handle(self._mount_fd, handle, flags)
            except OSError as exc:
                if exc.errno != errno.ENOMEM or time.monotonic() > deadline:
                    raise
            time.sleep(0.001)

    def _directory(self, handle: bytes) -> int:
        """Its inode number, 0 when it is gone and was never asked for."""
        inode = self._inodes.get(handle)
        if inode is None:
            inode = self._number(handle)
            if inode:
                if len(self._inodes) >= _CACHED_HANDLES:
                    self._inodes.clear()
                self._inodes[handle] = inode
        return inode

    def _numbers(self, handles: set[bytes]) -> set[int]:
        return {number for number in map(self._number, handles) if number}

    def _number(self, handle: bytes) -> int:
        try:
            fd = self._open(handle, os.O_PATH | os.O_CLOEXEC)
        except OSError as exc:
            if exc.errno in _GONE:
                return 0
            raise
        try:
            return os.fstat(fd).st_ino
        finally:
            os.close(fd)

    def _close_all(self) -> None:
        for fd in (self._fd, self._wake, self._mount_fd):
            if fd >= 0:
                os.close(fd)
        self._fd = self._wake = self._mount_fd = -1
