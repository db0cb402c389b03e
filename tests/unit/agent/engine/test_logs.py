"""The log format, cutting, rotation, and reading while it is written."""

from __future__ import annotations

import re
import threading
import time
from pathlib import Path

import pytest

from agent.engine import logs
from agent.engine.logs import LINE_LIMIT_BYTES, LogWriter, read_log
from agent.errors import InvalidArgument

pytestmark = pytest.mark.unit

LINE = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z (stdout|stderr) [FP] .*")


def text_of(path: Path) -> bytes:
    return b"".join(entry.data for entry in read_log(path))


def test_lines_carry_stamp_stream_and_flag(tmp_path: Path) -> None:
    """Each line is in CRI's format, with the time at which it came in."""
    path = tmp_path / "log"
    writer = LogWriter(path)
    before = time.time_ns()
    writer.write("stdout", b"one\ntwo\n")
    writer.write("stderr", b"three\n")
    after = time.time_ns()
    writer.close()
    assert all(LINE.fullmatch(line) for line in path.read_bytes().splitlines())
    entries = list(read_log(path))
    assert [(entry.stream, entry.partial, entry.data) for entry in entries] == [
        ("stdout", False, b"one\n"),
        ("stdout", False, b"two\n"),
        ("stderr", False, b"three\n"),
    ]
    assert all(before <= entry.unix_ns <= after for entry in entries)


def test_pieces_become_whole_lines(tmp_path: Path) -> None:
    """A line that comes in pieces, mixed with the other stream's, is one entry."""
    path = tmp_path / "log"
    writer = LogWriter(path)
    writer.write("stdout", b"hal")
    writer.write("stderr", b"other\n")
    writer.write("stdout", b"f\nrest")
    writer.close()
    assert [entry.data for entry in read_log(path)] == [b"other\n", b"half\n", b"rest"]
    assert path.read_bytes().endswith(b" stdout P rest\n")


def test_long_lines_are_cut_into_parts(tmp_path: Path) -> None:
    """A line over the limit becomes parts, the last one whole, and reading puts it together again."""
    path = tmp_path / "log"
    line = b"x" * (2 * LINE_LIMIT_BYTES + 5) + b"\n"
    writer = LogWriter(path)
    for start in range(0, len(line), 1000):
        writer.write("stdout", line[start : start + 1000])
    writer.close()
    entries = list(read_log(path))
    assert [entry.partial for entry in entries] == [True, True, False]
    assert text_of(path) == line


def test_rotation_keeps_the_newest_files(tmp_path: Path) -> None:
    """A full file moves to .1 and .2; older ones are gone; entries are never split between files."""
    path = tmp_path / "log"
    writer = LogWriter(path, max_bytes=1000)
    for number in range(100):
        writer.write("stdout", b"line %03d\n" % number)
    writer.close()
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["log", "log.1", "log.2"]
    assert all(entry.stat().st_size <= 1000 for entry in tmp_path.iterdir())
    numbers = [int(entry.data[5:]) for entry in read_log(path)]
    assert numbers == list(range(numbers[0], 100))
    assert len(numbers) > 40


def test_one_large_write_rotates_between_lines(tmp_path: Path) -> None:
    """A single read of the pipe may fill several files; no line is lost or torn."""
    path = tmp_path / "log"
    writer = LogWriter(path, max_bytes=1000, max_files=8)
    data = b"".join(b"line %03d\n" % number for number in range(100))
    writer.write("stdout", data)
    writer.close()
    assert text_of(path) == data


def test_writer_appends_after_a_restart(tmp_path: Path) -> None:
    """A second start of the container goes on in the same file."""
    path = tmp_path / "log"
    for word in (b"first\n", b"second\n"):
        writer = LogWriter(path)
        writer.write("stdout", word)
        writer.close()
    assert text_of(path) == b"first\nsecond\n"


def test_tail_and_since(tmp_path: Path) -> None:
    """tail counts from the end, since_unix_ns leaves out what is older."""
    path = tmp_path / "log"
    writer = LogWriter(path)
    writer.write("stdout", b"old\n")
    time.sleep(0.002)
    middle = time.time_ns()
    writer.write("stdout", b"a\nb\nc\n")
    writer.close()
    assert [entry.data for entry in read_log(path, tail=2)] == [b"b\n", b"c\n"]
    assert list(read_log(path, tail=0)) == []
    assert [entry.data for entry in read_log(path, since_unix_ns=middle)] == [b"a\n", b"b\n", b"c\n"]


def test_lines_that_a_crash_tore_are_left_out(tmp_path: Path) -> None:
    """Entries that do not parse are skipped, the others are read."""
    path = tmp_path / "log"
    writer = LogWriter(path)
    writer.write("stdout", b"good\n")
    writer.close()
    with path.open("ab") as file:
        file.write(b"2026-11-24T03:41:00.1234\nnonsense\n2026-11-24T03:41:00.123456789Z stdout F half")
    assert text_of(path) == b"good\n"


def test_missing_log_is_empty(tmp_path: Path) -> None:
    """A container that never ran has no log file, and an empty log."""
    assert list(read_log(tmp_path / "log")) == []


def test_following_sees_every_line_once_through_rotations(tmp_path: Path) -> None:
    """A reader that starts before the writer and ends after it gets everything, in order, across rotated files."""
    path = tmp_path / "log"
    alive = threading.Event()
    alive.set()
    count = 300

    def produce() -> None:
        writer = LogWriter(path, max_bytes=4000, max_files=8)
        for number in range(count):
            writer.write("stdout", b"line %d\n" % number)
            time.sleep(0.001)
        writer.close()
        alive.clear()

    thread = threading.Thread(target=produce)
    thread.start()
    lines = [entry.data for entry in read_log(path, follow=alive.is_set)]
    thread.join()
    assert lines == [b"line %d\n" % number for number in range(count)]


def test_the_options_of_a_log() -> None:
    """Docker's names and sizes; what is none is refused with an example."""
    assert logs.limits({}) == (logs.MAX_BYTES, logs.MAX_FILES)
    assert logs.limits({"max-size": "10k", "max-file": "7"}) == (10240, 7)
    for wrong in ({"max-size": "0"}, {"max-size": "x"}, {"max-file": "0"}, {"max-file": "101"}, {"mode": "x"}):
        with pytest.raises(InvalidArgument):
            logs.limits(wrong)


@pytest.mark.parametrize("files", [1, 2, 20])
def test_as_many_files_as_were_asked_for(tmp_path: Path, files: int) -> None:
    """All of them are read as one; none is beyond the number."""
    path = tmp_path / "container.log"
    writer = logs.LogWriter(path, max_bytes=200, max_files=files)
    for number in range(200):
        writer.write("stdout", b"line %03d\n" % number)
    writer.close()
    assert len(list(tmp_path.iterdir())) == files
    read = [entry.data for entry in logs.read_log(path)]
    assert read == [b"line %03d\n" % number for number in range(200 - len(read), 200)]
    assert len(read) >= 3 * (files - 1)
