import ctypes
import errno
import threading

import pytest

from agent.linux import libc

pytestmark = pytest.mark.unit

_close = libc.declare("close", ctypes.c_int)
_getpid = libc.declare("getpid")


def test_failure_is_an_oserror_that_names_the_call_its_arguments_and_the_reason() -> None:
    """A failed call raises OSError with errno and the call's text."""
    with pytest.raises(OSError) as caught:
        _close(1 << 20)
    assert caught.value.errno == errno.EBADF
    assert "close(1048576): Bad file descriptor" in str(caught.value)


def test_result_is_passed_through() -> None:
    """A call that works returns what the C function returned."""
    assert _getpid() > 0


def test_two_declarations_of_one_symbol_keep_their_own_prototype() -> None:
    """Declaring a symbol again does not change an earlier declaration."""
    again = libc.declare("close", ctypes.c_int)
    _close_other = libc.declare("close", ctypes.c_char_p)
    assert again.argtypes != _close_other.argtypes  # type: ignore[attr-defined]
    with pytest.raises(OSError, match="close"):
        again(1 << 20)


def test_a_system_call_by_number_reports_under_its_own_name() -> None:
    """The error of declare_syscall() names the call, not syscall(), and leaves the number out."""
    pidfd_getfd = libc.declare_syscall("pidfd_getfd", 438, ctypes.c_int, ctypes.c_int, ctypes.c_uint)
    with pytest.raises(OSError, match=r"pidfd_getfd\(-1, 0, 0\)"):
        pidfd_getfd(-1, 0, 0)


def test_errno_belongs_to_the_thread() -> None:
    """Failures in many threads at once each carry their own errno."""
    wrong: list[int] = []

    def fail() -> None:
        for _ in range(200):
            try:
                _close(1 << 20)
            except OSError as exc:
                if exc.errno != errno.EBADF:
                    wrong.append(exc.errno or 0)

    threads = [threading.Thread(target=fail) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
