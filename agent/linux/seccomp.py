"""Take on a seccomp filter. The program of a filter comes ready-made (libseccomp.py): who takes one on is between fork and
execve, where nothing may be loaded any more. Standard library only.
"""

from __future__ import annotations

import ctypes
import errno

from agent.linux import libc

_PR_SET_SECCOMP, _MODE_FILTER = 22, 2
INSTRUCTION_BYTES = 8  # struct sock_filter
MAX_INSTRUCTIONS = 4096  # BPF_MAXINSNS


class _Program(ctypes.Structure):  # struct sock_fprog
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p))


_prctl = libc.declare("prctl", ctypes.c_int, ctypes.c_ulong, libc.Buffer, ctypes.c_ulong, ctypes.c_ulong)


def install(program: bytes) -> None:
    """From now on the kernel asks this filter at every system call of this thread and of what it becomes; for good.

    Wants no_new_privs, or CAP_SYS_ADMIN in the user namespace (EACCES). EINVAL: no valid program.
    """
    count, rest = divmod(len(program), INSTRUCTION_BYTES)
    if rest or not 0 < count <= MAX_INSTRUCTIONS:
        raise OSError(errno.EINVAL, f"a seccomp filter of {len(program)} bytes")
    instructions = ctypes.create_string_buffer(program, len(program))
    what = _Program(count, ctypes.addressof(instructions))
    _prctl(_PR_SET_SECCOMP, _MODE_FILTER, ctypes.byref(what), 0, 0)
