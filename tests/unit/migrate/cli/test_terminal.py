"""The detach keys and the terminal's mode."""

from __future__ import annotations

import os
import pty
import termios

import pytest

from migrate.cli.terminal import DetachKeys, raw_mode

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("reads", "passed_on", "typed"),
    [
        ([b"abc"], b"abc", False),
        ([b"ab\x10\x11cd"], b"ab", True),
        ([b"ab\x10", b"\x11"], b"ab", True),
        ([b"\x10", b"x"], b"\x10x", False),
        ([b"\x10", b"\x10", b"\x11"], b"\x10", True),
        ([b"\x11\x10"], b"\x11", False),
    ],
)
def test_detach_keys_are_found_across_reads(reads: list[bytes], passed_on: bytes, typed: bool) -> None:
    """A lone ctrl-p waits for the next key and is then passed on."""
    keys = DetachKeys()
    result, found = b"", False
    for data in reads:
        more, found = keys.feed(data)
        result += more
    assert (result, found) == (passed_on, typed)


def test_the_terminal_is_restored_after_an_error() -> None:
    """Raw inside, as before outside."""
    master, slave = pty.openpty()
    try:
        before = termios.tcgetattr(slave)
        with pytest.raises(ZeroDivisionError), raw_mode(slave):
            assert not termios.tcgetattr(slave)[3] & termios.ECHO
            _ = 1 / 0
        assert termios.tcgetattr(slave) == before
    finally:
        os.close(master)
        os.close(slave)
