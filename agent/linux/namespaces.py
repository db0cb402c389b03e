"""unshare and setns with the signatures that `os` has from Python 3.12 on, and user namespaces that live as a
descriptor.

Namespaces belong to threads and most refuse to change in a process with more than one: only single-threaded helpers
call this.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from agent.linux import libc

# From the Linux kernel headers (sched.h).
CLONE_NEWTIME = 0x00000080
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

_unshare = libc.declare("unshare", ctypes.c_int)
_setns = libc.declare("setns", ctypes.c_int, ctypes.c_int)
_setdomainname = libc.declare("setdomainname", ctypes.c_char_p, ctypes.c_size_t)


def unshare(flags: int) -> None:
    """Leave the namespaces named by the CLONE_NEW* bits of `flags`. PID: only later children are in the new one."""
    _unshare(flags)


def setns(fd: int, nstype: int = 0) -> None:
    """Enter the namespace `fd`; or, where `fd` is a pidfd, those of that process named by the CLONE_NEW* bits of
    `nstype`.
    """
    _setns(fd, nstype)


def setdomainname(name: str) -> None:
    """Of this process's UTS namespace, as socket.sethostname() the host name."""
    data = name.encode()
    _setdomainname(data, len(data))


def network_of(pid: int) -> AbstractContextManager[None]:
    """In the network namespace of the process `pid` for the length of the block: sockets that are opened there stay there."""
    return _inside(pid, "net", CLONE_NEWNET)


def mounts_of(pid: int) -> AbstractContextManager[None]:
    """In the mount namespace of the process `pid` for the length of the block. The working directory is "/" in it and after it."""
    return _inside(pid, "mnt", CLONE_NEWNS)


@contextmanager
def _inside(pid: int, name: str, kind: int) -> Iterator[None]:
    with open(f"/proc/{pid}/ns/{name}", "rb") as there, open(f"/proc/self/ns/{name}", "rb") as here:
        setns(there.fileno(), kind)
        try:
            yield
        finally:
            setns(here.fileno(), kind)


@contextmanager
def mounts_of_its_own() -> Iterator[None]:
    """In a new mount namespace for the length of the block. The working directory is "/" after it."""
    with open("/proc/self/ns/mnt", "rb") as here:
        unshare(CLONE_NEWNS)
        try:
            yield
        finally:
            setns(here.fileno(), CLONE_NEWNS)


def write_id_maps(pid: int, base: int, count: int, proc: Path = Path("/proc")) -> None:
    """Map ids 0..count-1 of `pid`'s new user namespace to the host's from `base` on, users and groups alike."""
    for kind in ("uid", "gid"):
        path = proc / str(pid) / f"{kind}_map"
        try:
            path.write_text(f"0 {base} {count}\n")
        except OSError as exc:
            raise OSError(exc.errno, f"write(0 {base} {count}): {exc.strerror}", str(path)) from exc


def userns_fd(base: int, count: int) -> int:
    """A descriptor of a new user namespace with that map; the namespace dies with the last descriptor or mount that
    uses it.

    Forks: the caller must be single-threaded. The caller owns the descriptor (CLOEXEC).
    """
    unshared_r, unshared_w = os.pipe()
    done_r, done_w = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.close(done_w)
            unshare(CLONE_NEWUSER)
            os.write(unshared_w, b"u")
            os.read(done_r, 1)
            status = 0
        except OSError as exc:
            os.write(unshared_w, str(exc.errno).encode())
        finally:
            os._exit(status)
    try:
        os.close(unshared_w)
        unshared_w = -1
        answer = os.read(unshared_r, 16)
        if answer != b"u":
            number = int(answer or b"0")
            raise OSError(number, f"unshare(CLONE_NEWUSER): {os.strerror(number)}")
        write_id_maps(pid, base, count)
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        for fd in (unshared_r, unshared_w, done_r, done_w):  # closing done_w lets the child go
            if fd >= 0:
                os.close(fd)
        os.waitpid(pid, 0)
