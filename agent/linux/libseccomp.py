"""From rules to the program of a seccomp filter, by the library libseccomp: it knows the numbers of system calls on every
architecture and what a comparison of a 64-bit argument looks like in 32-bit instructions.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

LIBRARY = "libseccomp.so.2"
ALLOW, LOG, KILL_PROCESS, KILL_THREAD = 0x7FFF0000, 0x7FFC0000, 0x80000000, 0
_ERRNO, _TRACE, _TRAP = 0x00050000, 0x7FF00000, 0x00030000
_CTL_NNP, _CTL_OPTIMIZE, _BINARY_TREE = 3, 8, 2  # enum scmp_filter_attr
_UNKNOWN_CALL = -1  # __NR_SCMP_ERROR
_X32 = 0x40000000  # in the numbers of that ABI, which shares its architecture's name with x86_64
COMPARISONS = ("NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ")  # enum scmp_compare, from 1

# System calls that are younger than the libraries of today's distributions, which take no number that they have no name for
# where there are several architectures. From 424 on a call has one number on every architecture.
YOUNG = {
    "quotactl_fd": 443, "landlock_create_ruleset": 444, "landlock_add_rule": 445, "landlock_restrict_self": 446,
    "memfd_secret": 447, "process_mrelease": 448, "futex_waitv": 449, "set_mempolicy_home_node": 450, "cachestat": 451,
    "fchmodat2": 452, "map_shadow_stack": 453, "futex_wake": 454, "futex_wait": 455, "futex_requeue": 456, "statmount": 457,
    "listmount": 458, "lsm_get_self_attr": 459, "lsm_set_self_attr": 460, "lsm_list_modules": 461, "mseal": 462,
    "setxattrat": 463, "getxattrat": 464, "listxattrat": 465, "removexattrat": 466, "open_tree_attr": 467,
    "file_getattr": 468, "file_setattr": 469, "listns": 470,
}  # fmt: skip


def errno_action(number: int) -> int:
    return _ERRNO | number & 0xFFFF


def trace_action(number: int) -> int:
    return _TRACE | number & 0xFFFF


def trap_action(number: int) -> int:
    return _TRAP | number & 0xFFFF


@dataclass(frozen=True, kw_only=True)
class Condition:
    """Of argument `index`: `comparison` is one of COMPARISONS; for MASKED_EQ `value` is the mask and `other` the datum."""

    index: int
    comparison: str
    value: int
    other: int = 0


@dataclass(frozen=True, kw_only=True)
class Rule:
    """`conditions` hold together; of several rules for a call any may hold."""

    names: tuple[str, ...]
    action: int
    conditions: tuple[Condition, ...] = ()


class _Comparison(ctypes.Structure):  # struct scmp_arg_cmp
    _fields_ = (("arg", ctypes.c_uint), ("op", ctypes.c_int), ("a", ctypes.c_uint64), ("b", ctypes.c_uint64))


_guard = threading.Lock()  # the library keeps what it found out about the kernel in variables


def compile_filter(default: int, rules: Iterable[Rule], architectures: Sequence[str]) -> bytes:
    """The program, for the native architecture and `architectures` ("x86", "x32", "arm", ...: those of seccomp_arch_resolve_name;
    unknown ones are left out). Calls that no kernel known here has are left out too, as every engine does.

    Raises OSError: ELIBACC without the library; EINVAL and others with its reason why this makes no filter.
    """
    library = load()
    with _guard:
        context = library.seccomp_init(default)
        if not context:
            raise OSError(errno.EINVAL, f"libseccomp takes no default action {default:#x}")
        try:
            _check("attribute", library.seccomp_attr_set(context, _CTL_NNP, 0))  # it is not the library that loads it
            _check("attribute", library.seccomp_attr_set(context, _CTL_OPTIMIZE, _BINARY_TREE))
            for name in architectures:
                token = library.seccomp_arch_resolve_name(name.encode())
                if token:
                    _check(name, library.seccomp_arch_add(context, token), fine=(-errno.EEXIST,))
            young: dict[int, int] = {}
            for rule in rules:
                for name in rule.names if rule.action != default else ():
                    number = _number(library, name)
                    if number != _UNKNOWN_CALL:
                        _add(library, context, rule, name, number)
                    elif name in YOUNG and not rule.conditions:
                        young.setdefault(YOUNG[name], rule.action)
            return _before(library.seccomp_arch_native(), default, young) + _export(library, context)
        finally:
            library.seccomp_release(context)


def knows(name: str) -> bool:
    """Whether a system call of this name exists on some architecture. Raises OSError."""
    return name in YOUNG or _number(load(), name) != _UNKNOWN_CALL


def version() -> str:
    """ "2.5.4". Raises OSError."""

    class Version(ctypes.Structure):
        _fields_ = (("major", ctypes.c_uint), ("minor", ctypes.c_uint), ("micro", ctypes.c_uint))

    library = load()
    library.seccomp_version.restype = ctypes.POINTER(Version)
    found = library.seccomp_version().contents
    return f"{found.major}.{found.minor}.{found.micro}"


@cache
def load() -> Any:
    """The library. Raises OSError."""
    try:
        library = ctypes.CDLL(LIBRARY)
    except OSError as exc:
        raise OSError(errno.ELIBACC, f"{LIBRARY} is not here: {exc}") from exc
    context, number = ctypes.c_void_p, ctypes.c_uint32
    for name, result, arguments in (
        ("seccomp_init", context, [number]),
        ("seccomp_release", None, [context]),
        ("seccomp_attr_set", ctypes.c_int, [context, ctypes.c_int, number]),
        ("seccomp_arch_resolve_name", number, [ctypes.c_char_p]),
        ("seccomp_arch_native", number, []),
        ("seccomp_arch_add", ctypes.c_int, [context, number]),
        ("seccomp_syscall_resolve_name", ctypes.c_int, [ctypes.c_char_p]),
        ("seccomp_rule_add_array", ctypes.c_int, [context, number, ctypes.c_int, ctypes.c_uint, ctypes.c_void_p]),
        ("seccomp_export_bpf", ctypes.c_int, [context, ctypes.c_int]),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def _number(library: Any, name: str) -> int:
    number: int = library.seccomp_syscall_resolve_name(name.encode())
    return number


def _add(library: Any, context: Any, rule: Rule, name: str, number: int) -> None:
    conditions = (_Comparison * len(rule.conditions))(
        *(_Comparison(c.index, COMPARISONS.index(c.comparison) + 1, c.value, c.other) for c in rule.conditions)
    )
    result = library.seccomp_rule_add_array(context, rule.action, number, len(conditions), conditions)
    _check(name, result, fine=(-errno.EEXIST,))


def _before(architecture: int, default: int, actions: dict[int, int]) -> bytes:
    """Instructions that answer for these system calls of the native architecture; every other goes on behind them. Where EPERM is
    for all that is not named, a call that is younger than this list gets ENOSYS: C libraries then fall back on older ones.
    """
    load, equal, at_least, answer = 0x20, 0x15, 0x35, 0x06  # BPF_LD|W|ABS, BPF_JMP|JEQ|K, BPF_JMP|JGE|K, BPF_RET|K
    answers = b"".join(
        struct.pack("=HBBIHBBI", equal, 0, 1, number, answer, 0, 0, action)
        for number, action in sorted(actions.items())
    )
    if default == errno_action(errno.EPERM):
        answers += struct.pack("=HBBI", at_least, 0, 1, max(YOUNG.values()) + 1)
        answers += struct.pack("=HBBI", answer, 0, 0, errno_action(errno.ENOSYS))
    past = len(answers) // 8
    return (
        struct.pack("=HBBI", load, 0, 0, 4)
        + struct.pack("=HBBI", equal, 0, past + 3, architecture)
        + struct.pack("=HBBI", load, 0, 0, 0)
        + struct.pack("=HBBI", at_least, past + 1, 0, _X32)
        + struct.pack("=HBBI", at_least, 0, past, min(YOUNG.values()))
        + answers
    )


def _export(library: Any, context: Any) -> bytes:
    fd = os.memfd_create("seccomp")
    try:
        _check("export", library.seccomp_export_bpf(context, fd))
        return os.pread(fd, os.fstat(fd).st_size, 0)
    finally:
        os.close(fd)


def _check(what: str, result: int, fine: Sequence[int] = ()) -> None:
    if result < 0 and result not in fine:
        raise OSError(-result, f"libseccomp: {what}: {os.strerror(-result)}")
