"""clone3(2) with CLONE_INTO_CGROUP: a fork whose child is in a cgroup of version 2 from its first instruction.

Nobody changes cgroups by it, so nobody waits for every CPU of the host (cgroup_threadgroup_rwsem), which a write to cgroup.procs does.
Linux 5.7. For a process with a single thread: with others the child may find a lock held by one that it does not have.
"""

from __future__ import annotations

import ctypes
import os
import signal
from pathlib import Path

# From the Linux kernel headers (sched.h).
CLONE_INTO_CGROUP = 0x200000000
_SYS_CLONE3 = 435

# With the interpreter's lock held, unlike libc.declare(): the child has no other thread to give it back.
_syscall = ctypes.PyDLL(None, use_errno=True).syscall
_syscall.argtypes, _syscall.restype = (ctypes.c_long, ctypes.c_void_p, ctypes.c_size_t), ctypes.c_long


class _Arguments(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_uint64)
        for name in (
            *("flags", "pidfd", "child_tid", "parent_tid", "exit_signal", "stack", "stack_size", "tls"),
            *("set_tid", "set_tid_size", "cgroup"),
        )
    )


def fork_into(cgroup: Path) -> int:
    """As os.fork(); the child is in the directory `cgroup` of the version 2 hierarchy. Raises OSError."""
    directory = os.open(cgroup, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    arguments = _Arguments(flags=CLONE_INTO_CGROUP, exit_signal=signal.SIGCHLD, cgroup=directory)
    # What os.fork() does around its own system call.
    ctypes.pythonapi.PyOS_BeforeFork()
    pid: int = _syscall(_SYS_CLONE3, ctypes.byref(arguments), ctypes.sizeof(arguments))
    number = ctypes.get_errno()
    if pid == 0:
        ctypes.pythonapi.PyOS_AfterFork_Child()
    else:
        ctypes.pythonapi.PyOS_AfterFork_Parent()
    os.close(directory)
    if pid < 0:
        raise OSError(number, f"clone3(CLONE_INTO_CGROUP): {os.strerror(number)}", str(cgroup))
    return pid
