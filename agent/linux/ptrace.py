"""Run a system call in another process: seize, stop, set registers, one step, put everything back. x86-64 only.

All calls for one process must come from the same thread. The process notices nothing but a stop of about a millisecond; an interrupted
system call is restarted by the kernel as after any stop.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import signal
from collections.abc import Iterator, Sequence
from pathlib import Path

from agent.linux import libc

# linux/ptrace.h
_CONT, _SINGLESTEP, _GETREGS, _SETREGS, _DETACH = 7, 9, 12, 13, 17
_EVENT_STOP = 128
_SEIZE, _INTERRUPT = 0x4206, 0x4207
_O_SUSPEND_SECCOMP = 1 << 21
_WALL = 0x40000000
_SYSCALL_INSTRUCTION = b"\x0f\x05"
_NO_SYSCALL = (1 << 64) - 1  # orig_rax: no restart logic for the injected call
_ARGUMENTS = ("rdi", "rsi", "rdx", "r10", "r8", "r9")


_REGISTER_NAMES = (
    "r15", "r14", "r13", "r12", "rbp", "rbx", "r11", "r10", "r9", "r8", "rax", "rcx", "rdx", "rsi", "rdi",
    "orig_rax", "rip", "cs", "eflags", "rsp", "ss", "fs_base", "gs_base", "ds", "es", "fs", "gs",
)  # fmt: skip


class _Registers(ctypes.Structure):  # user_regs_struct of sys/user.h
    _fields_ = tuple((name, ctypes.c_uint64) for name in _REGISTER_NAMES)


_ptrace = libc.declare("ptrace", ctypes.c_long, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p, restype=ctypes.c_long)


class Stopped:
    """A process that stands still until the `with` of stopped() ends."""

    def __init__(self, pid: int, entry: int, signals: list[int]) -> None:
        self._pid, self._entry, self._signals = pid, entry, signals
        self._saved = _Registers()
        _ptrace(_GETREGS, pid, None, ctypes.addressof(self._saved))

    def call(self, number: int, arguments: Sequence[int]) -> int:
        """The call's result as the process sees it: negative = minus errno. Raises OSError when the process is gone."""
        registers = _Registers.from_buffer_copy(self._saved)
        registers.rax, registers.orig_rax, registers.rip = number, _NO_SYSCALL, self._entry
        for name, value in zip(_ARGUMENTS, arguments, strict=False):
            setattr(registers, name, value)
        _ptrace(_SETREGS, self._pid, None, ctypes.addressof(registers))
        while True:
            _ptrace(_SINGLESTEP, self._pid, None, None)
            stop, event = _wait_stop(self._pid)
            if stop == signal.SIGTRAP and not event:
                break
            if not event:  # a signal of its own was there before the instruction: the call has not been made yet
                self._signals.append(stop)
        _ptrace(_GETREGS, self._pid, None, ctypes.addressof(registers))
        return ctypes.c_int64(registers.rax).value

    def restore(self) -> None:
        _ptrace(_SETREGS, self._pid, None, ctypes.addressof(self._saved))


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[Stopped]:
    """Stop the main thread of `pid`; in the end it has its old registers and runs on. Raises OSError: traced already, gone,
    or no x86-64 process.
    """
    entry = _syscall_instruction(pid)
    # If we died in here, the process would run on with the registers of our call.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        yield from _stopped(pid, entry)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _stopped(pid: int, entry: int) -> Iterator[Stopped]:
    try:
        _ptrace(_SEIZE, pid, None, _O_SUSPEND_SECCOMP)
    except PermissionError:
        _ptrace(
            _SEIZE, pid, None, None
        )  # without CONFIG_CHECKPOINT_RESTORE's option; a filter may then refuse the call
    signals: list[int] = []  # of its own, which came in between
    try:
        _ptrace(_INTERRUPT, pid, None, None)
        while True:
            stop, event = _wait_stop(pid)
            if event:
                break
            signals.append(stop)
            _ptrace(_CONT, pid, None, None)
        process = Stopped(pid, entry, signals)
        try:
            yield process
        finally:
            process.restore()
    finally:
        with contextlib.suppress(ProcessLookupError):  # it was killed meanwhile
            _ptrace(_DETACH, pid, None, None)
            for number in signals:  # none is lost
                os.kill(pid, number)


def _wait_stop(pid: int) -> tuple[int, bool]:
    """(signal, whether it stands by our PTRACE_INTERRUPT or a group stop rather than before that signal or after a step)."""
    _, status = os.waitpid(pid, _WALL)
    if not os.WIFSTOPPED(status):
        raise ProcessLookupError(f"process {pid} ended while it was stopped")
    return os.WSTOPSIG(status), status >> 16 == _EVENT_STOP


def _syscall_instruction(pid: int) -> int:
    """The address of a `syscall` in the vdso of `pid`."""
    if platform.machine() != "x86_64":
        raise OSError(38, f"system calls are injected on x86_64 only, not on {platform.machine()}")
    for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
        if line.endswith("[vdso]"):
            start, end = (int(x, 16) for x in line.split(maxsplit=1)[0].split("-"))
            with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
                at = os.pread(memory.fileno(), end - start, start).find(_SYSCALL_INSTRUCTION)
            if at >= 0:
                return start + at
    raise OSError(38, f"process {pid} has no vdso with a system call in it")
