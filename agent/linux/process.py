"""What a process may do and who looks after it: prctl, capabilities, pidfds."""

from __future__ import annotations

import ctypes
import os
import select
import signal
from collections.abc import Iterable
from pathlib import Path

from agent.linux import libc

# From the Linux kernel headers (prctl.h, securebits.h, capability.h).
PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_CAPBSET_READ = 23
PR_CAPBSET_DROP = 24
PR_SET_SECUREBITS = 28
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4
SECBIT_NO_SETUID_FIXUP = 1 << 2
_LINUX_CAPABILITY_VERSION_3 = 0x20080522

CAPABILITIES = (
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL",
    "CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE",
    "CAP_NET_BROADCAST", "CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE",
    "CAP_SYS_RAWIO", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT",
    "CAP_SYS_NICE", "CAP_SYS_RESOURCE", "CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE",
    "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL", "CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG",
    "CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND", "CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE",
)  # fmt: skip
"""Names by number: CAPABILITIES[0] is capability 0."""


class _CapHeader(ctypes.Structure):
    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _CapData(ctypes.Structure):
    _fields_ = (("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32))


_prctl = libc.declare("prctl", ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong)
_capset = libc.declare("capset", libc.Buffer, libc.Buffer)
_pidfd_getfd = libc.declare_syscall("pidfd_getfd", 438, ctypes.c_int, ctypes.c_int, ctypes.c_uint)


def set_child_subreaper() -> None:
    """Descendants whose parent dies become children of this process instead of pid 1's."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def set_parent_death_signal(number: int) -> None:
    """Get signal `number` when the parent thread dies; lost on a change of ids and not inherited by children."""
    _prctl(PR_SET_PDEATHSIG, number, 0, 0, 0)


def set_no_new_privileges() -> None:
    """From now on execve grants nothing: set-uid bits and file capabilities are ignored. For good, children too."""
    _prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)


def set_dumpable(dumpable: bool) -> None:
    """False: nobody without privilege over the host may trace this process or look at its memory, until its next
    execve.
    """
    _prctl(PR_SET_DUMPABLE, int(dumpable), 0, 0, 0)


def set_securebits(bits: int) -> None:
    _prctl(PR_SET_SECUREBITS, bits, 0, 0, 0)


def capability_number(name: str) -> int:
    """CAP_CHOWN -> 0. Raises ValueError for a name that this module does not know."""
    try:
        return CAPABILITIES.index(name)
    except ValueError:
        raise ValueError(f"unknown capability {name!r}") from None


def drop_bounding(keep: Iterable[str]) -> None:
    """Take every capability but `keep` out of the bounding set; those that the kernel has no name for go too."""
    kept = {capability_number(name) for name in keep}
    for number in range(64):
        if number in kept:
            continue
        try:
            _prctl(PR_CAPBSET_DROP, number, 0, 0, 0)
        except OSError:
            if number < len(CAPABILITIES) and _in_bounding(number):
                raise
            if number >= len(CAPABILITIES):
                return  # past the last capability of this kernel


def set_capabilities(*, permitted: Iterable[str], effective: Iterable[str], inheritable: Iterable[str] = ()) -> None:
    """capset(2) for the calling thread; each set can only shrink to what `permitted` has now."""
    header = _CapHeader(_LINUX_CAPABILITY_VERSION_3, 0)
    data = (_CapData * 2)()
    for field, names in (("permitted", permitted), ("effective", effective), ("inheritable", inheritable)):
        bits = sum(1 << capability_number(name) for name in set(names))
        setattr(data[0], field, bits & 0xFFFFFFFF)
        setattr(data[1], field, bits >> 32)
    _capset(ctypes.byref(header), data)


def clear_ambient() -> None:
    """Empty the ambient set: nothing is handed to programs by execve alone."""
    _prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)


def show_argument(placeholder: str, text: str) -> None:
    """Put `text` where `ps` shows the argument `placeholder` of this process: its end, where there is more than room for.

    The kernel shows the memory in which execve left the arguments, whatever is in it now. No such argument: nothing happens.
    """
    fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    start, end = int(fields[45]), int(fields[46])  # arg_start, arg_end: fields 48 and 49
    if end <= start:
        return  # the kernel hides them from us
    at = ctypes.string_at(start, end - start).find(os.fsencode(placeholder) + b"\0")
    if at >= 0:
        data = os.fsencode(text)[-len(placeholder) :]
        ctypes.memmove(start + at, data.ljust(len(placeholder), b"\0"), len(placeholder))


def pidfd_open(pid: int) -> int:
    """A descriptor that names the process `pid` for good, whatever becomes of the number. The caller owns it
    (CLOEXEC).
    """
    return os.pidfd_open(pid)


def has_ended(pid: int) -> bool:
    """Whether there is no such process, or only what is left of it until its parent looks."""
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        poller = select.poll()
        poller.register(fd, select.POLLIN)
        return bool(poller.poll(0))
    finally:
        os.close(fd)


def pidfd_send_signal(pidfd: int, number: int) -> None:
    signal.pidfd_send_signal(pidfd, number)


def pidfd_getfd(pidfd: int, fd: int) -> int:
    """A copy of descriptor `fd` of that process: the same open file. The caller owns it (CLOEXEC)."""
    return _pidfd_getfd(pidfd, fd, 0)


def inner_pid(pid: int) -> int:
    """Its number in the innermost pid namespace that it is in. Raises OSError when it is gone."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("NSpid:"):
            return int(line.split()[-1])
    raise ProcessLookupError(pid)


def _in_bounding(number: int) -> bool:
    try:
        return _prctl(PR_CAPBSET_READ, number, 0, 0, 0) == 1
    except OSError:
        return False


def read_bytes(pid: int) -> int:
    """What the process has read so far, by whatever call and of whatever. Raises OSError: it is gone, or the kernel does not count."""
    for line in Path(f"/proc/{pid}/io").read_text().splitlines():
        if line.startswith("rchar: "):
            return int(line.split()[1])
    raise OSError(f"/proc/{pid}/io does not say what was read")


def start_ticks(pid: int) -> int:
    """Field 22 of /proc/PID/stat: clock ticks from boot to the process's start. Raises OSError without the process."""
    return _stat_number(pid, 22)


def parent(pid: int) -> int:
    """Field 4 of /proc/PID/stat. Raises OSError without the process."""
    return _stat_number(pid, 4)


def _stat_number(pid: int, field: int) -> int:
    """`field` counts from 1, as in proc(5); from 3 on, behind the name, which may have anything in it."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[field - 3])
