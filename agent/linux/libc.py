"""One door to the C library: a function is declared once, at import, and a failure is an OSError that names the call.

`ctypes.CDLL` releases the GIL during a call and keeps errno per thread. Nothing here may change a prototype after
import.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from typing import Any

_libc = ctypes.CDLL(None, use_errno=True)
_syscall_type = ctypes.CFUNCTYPE(ctypes.c_long, ctypes.c_long, use_errno=True)

Buffer = ctypes.c_void_p  # what a pointer argument is declared as when the caller passes a ctypes object or None


def declare(name: str, *argtypes: Any, restype: Any = ctypes.c_int) -> Callable[..., int]:
    """Return the C function `name`; a negative result raises OSError whose text is "name(arguments): reason"."""
    function = _libc[name]  # a fresh object: two declarations of one symbol do not overwrite each other's prototype
    function.argtypes = argtypes
    function.restype = restype
    function.errcheck = _raise_errno(name)  # type: ignore[assignment]  # typeshed wants a bare function pointer type
    function.__name__ = name
    return function


def declare_syscall(name: str, number: int, *argtypes: Any) -> Callable[..., int]:
    """Return system call `number` as a function. Only for calls >= 424: those have one number on every architecture."""
    function = declare("syscall", ctypes.c_long, *argtypes, restype=ctypes.c_long)
    function.errcheck = _raise_errno(name, skip=1)  # type: ignore[attr-defined]

    def call(*arguments: Any) -> int:
        return function(number, *arguments)

    call.__name__ = name
    return call


def _raise_errno(name: str, skip: int = 0) -> Callable[[int, Any, tuple[Any, ...]], int]:
    def check(result: int, _function: Any, arguments: tuple[Any, ...]) -> int:
        if result < 0:
            number = ctypes.get_errno()
            text = ", ".join(_show(argument) for argument in arguments[skip:])
            raise OSError(number, f"{name}({text}): {os.strerror(number)}")
        return result

    return check


def _show(argument: object) -> str:
    if isinstance(argument, bytes):
        return repr(argument.decode(errors="backslashreplace"))
    if argument is None or isinstance(argument, int):
        return str(argument)
    return f"<{type(argument).__name__}>"
