"""The kernel's key rings, which no namespace divides: a container must not possess its starter's. Standard library only."""

from __future__ import annotations

import ctypes
import errno
import platform

from agent.linux import libc

_JOIN_SESSION_KEYRING = 1  # linux/keyctl.h
_NUMBERS = {"x86_64": 250, "aarch64": 219, "riscv64": 219, "s390x": 280, "ppc64le": 271}  # of keyctl(2)

_keyctl = libc.declare("syscall", ctypes.c_long, ctypes.c_int, ctypes.c_void_p, restype=ctypes.c_long)


def join_new_session() -> None:
    """From now on this thread, and what it starts, has a session key ring of its own, with nothing in it. Raises OSError."""
    number = _NUMBERS.get(platform.machine())
    try:
        if number is not None:
            _keyctl(number, _JOIN_SESSION_KEYRING, None)
    except OSError as exc:
        if exc.errno != errno.ENOSYS:  # a kernel without keys
            raise
