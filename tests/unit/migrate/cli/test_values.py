"""What people type, as values."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from migrate.cli import values

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("function", "text", "expected"),
    [
        (values.size, "512m", 512 << 20),
        (values.size, "1.5g", 3 << 29),
        (values.size, "1048576", 1 << 20),
        (values.size, "2GiB", 2 << 30),
        (values.size, "64 kB", 64 << 10),
        (values.duration, "90", 90.0),
        (values.duration, "1h30m", 5400.0),
        (values.duration, "250ms", 0.25),
        (values.milliseconds, "300", 0.3),
        (values.milliseconds, "2s", 2.0),
        (values.tail, "all", -1),
        (values.tail, "0", 0),
        (values.signal, "term", "SIGTERM"),
        (values.signal, "SIGHUP", "SIGHUP"),
        (values.signal, "9", "SIGKILL"),
        (values.positive, "7", 7),
        (values.cpus, "0.5", 0.5),
        (values.mac, "02:42:0A:58:01:02", "02:42:0a:58:01:02"),
        (values.address, "10.88.1.2/16", "10.88.1.2/16"),
        (values.capability, "net_admin", "CAP_NET_ADMIN"),
        (values.capability, "all", "ALL"),
        (values.instant, "1700000000", 1_700_000_000 * 10**9),
        (values.instant, "1970-01-02T00:00:00Z", 86_400 * 10**9),
    ],
)
def test_values_are_read(function: Callable[[str], Any], text: str, expected: Any) -> None:
    """The forms that Docker's users type."""
    assert function(text) == expected


@pytest.mark.parametrize(
    ("function", "text"),
    [
        (values.size, "much"),
        (values.size, "-1"),
        (values.duration, "5 minutes"),
        (values.duration, ""),
        (values.milliseconds, "0"),
        (values.tail, "-3"),
        (values.signal, "SIGNOTHING"),
        (values.signal, "99"),
        (values.positive, "0"),
        (values.cpus, "nan"),
        (values.cpus, "-1"),
        (values.mac, "01:00:5e:00:00:01"),
        (values.address, "10.88.1"),
        (values.capability, "net-admin!"),
        (values.instant, "yesterday"),
    ],
)
def test_what_makes_no_sense_is_refused_with_the_text(function: Callable[[str], Any], text: str) -> None:
    """argparse shows the message, so it must contain what was typed."""
    with pytest.raises(argparse.ArgumentTypeError) as caught:
        function(text)
    assert repr(text) in str(caught.value)


def test_a_duration_as_an_instant_is_in_the_past() -> None:
    """--since 10m means ten minutes ago."""
    assert abs(time.time_ns() - 600 * 10**9 - values.instant("10m")) < 10**9


def test_the_environment_is_put_together_as_docker_does(tmp_path: Path) -> None:
    """Files first, then -e; comments and empty lines go; a bare name takes the caller's value or disappears."""
    file = tmp_path / "env"
    file.write_text("# comment\n\nA=file\nB=file # not a comment\nFROM\nMISSING\n")
    result = values.environment(["A=option", "HOME", "GONE"], [str(file)], {"FROM": "outside", "HOME": "/h"})
    assert result == ["A=option", "B=file # not a comment", "FROM=outside", "HOME=/h"]


def test_a_wrong_line_of_an_env_file_is_named(tmp_path: Path) -> None:
    """File and line number are in the error."""
    file = tmp_path / "env"
    file.write_text("A=1\nno good=2\n")
    with pytest.raises(argparse.ArgumentTypeError, match=r"env:2: 'no good=2'"):
        values.environment([], [str(file)], {})
    with pytest.raises(argparse.ArgumentTypeError, match="cannot read"):
        values.environment([], [str(tmp_path / "nothing")], {})
