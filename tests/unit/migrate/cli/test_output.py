"""Text for people: tables, sizes, errors, the lines of a move, the page of a migration."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from typing import Any

import pytest

from migrate.cli import failures, hosts, migrations, progress, ps, tables
from migrate.cli.rounds import rounds
from migrate.errors import MigrateError, NotFound, StepError
from migrate.records import Capability, Container, Facts, Failure, Host, Migration, PrecopyOptions, Progress, Step

pytestmark = pytest.mark.unit

SECOND = 10**9
RECORD = Migration(
    id="4f2a" * 4,
    container_id="c" * 32,
    container="web1",
    source="host1",
    target="host2",
    state="succeeded",
    step="release",
    reason="",
    mode="auto",
    started_unix_ns=100 * SECOND,
    finished_unix_ns=103 * SECOND,
    epoch=1,
    failure=None,
    journal=(),
    facts={"downtime_s": 0.212, "total_s": 3.0},
    sent_bytes={"memory": 200_000_000, "writable_layer": 40_000_000, "images": 0},
    marks=(),
)


def _step(step: str, event: str, at_s: float, error: str = "") -> Step:
    return Step(migration_id="m", step=step, event=event, unix_ns=int(at_s * SECOND), facts={}, error=error)


def _progress(phase: str, done: int, total: int, at_s: float, text: str = "") -> Progress:
    return Progress(
        migration_id="m",
        phase=phase,
        text=text,
        done_bytes=done,
        total_bytes=total,
        facts={},
        unix_ns=int(at_s * SECOND),
    )


# ---------------------------------------------------------------- tables


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    """Two spaces between, none at the end."""
    text = tables.table(("A", "LONGER"), [("wide cell", 1), ("x", "")])
    assert text == "A          LONGER\nwide cell  1\nx"


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (12_345_678, "12.3 MB"), (999_960, "1 MB"), (2e15, "2000 TB")],
)
def test_sizes_are_readable(count: float, text: str) -> None:
    """Three digits and a unit."""
    assert tables.size(count) == text


@pytest.mark.parametrize(
    ("span_s", "text"),
    [(0.0008, "0.8 ms"), (0.2124, "212 ms"), (3.21, "3.2 s"), (59.99, "1 min 00 s"), (3700, "1 h 01 min")],
)
def test_spans_are_readable(span_s: float, text: str) -> None:
    """A unit that fits."""
    assert tables.seconds(span_s) == text


def test_ages_and_stamps() -> None:
    """The largest unit of an age; nanoseconds in a stamp; nothing for nothing."""
    now = 10**18
    assert tables.ago(now - 3 * 3600 * SECOND, now) == "3 hours"
    assert tables.ago(now - 1 * SECOND, now) == "1 second"
    assert tables.ago(0) == "-"
    assert tables.stamp(1) == "1970-01-01T00:00:00.000000001Z"
    assert tables.stamp(0) == ""
    assert tables.short("sha256:" + "ab" * 32) == "abababababab"


# ---------------------------------------------------------------- ps, hosts


CONTAINER = Container(
    id="a" * 32, name="web1", host="host1", state="running", image="redis", labels={"tier": "web", "x": ""}
)


@pytest.mark.parametrize(
    ("conditions", "expected"),
    [
        ([], True),
        ([("name", "eb")], True),
        ([("name", "db")], False),
        ([("status", "exited"), ("status", "running")], True),
        ([("status", "exited"), ("name", "web1")], False),
        ([("host", "host1"), ("image", "redis")], True),
        ([("label", "tier=web")], True),
        ([("label", "tier=db")], False),
        ([("label", "x")], True),
    ],
)
def test_filters_of_ps(conditions: list[tuple[str, str]], expected: bool) -> None:
    """The same key twice means either, different keys mean both."""
    assert ps.matches(CONTAINER, conditions) is expected


def test_the_status_says_what_matters() -> None:
    """Exit code, a move under way, and why nothing is known."""
    assert ps.status(replace(CONTAINER, state="exited", exit_code=3, finished_unix_ns=1)).startswith("exited (3) ")
    assert ps.status(replace(CONTAINER, migration_id="m")).endswith(", moving")
    assert ps.status(replace(CONTAINER, state="unknown", error="host1 is down")) == "unknown: host1 is down"


def test_a_host_that_lacks_something_says_what_to_do() -> None:
    """Only what is required and missing, unless more is asked for."""
    facts = Facts(
        agent_version="1",
        protocol=1,
        kernel="6.18",
        architecture="x86_64",
        criu_version="",
        memory_total_bytes=1,
        memory_available_bytes=1,
        disk_available_bytes=1,
        containers_running=0,
        bridge="migrate0",
        capabilities=(
            Capability(name="criu", ok=False, value="not found", remedy="apt install criu", required=True),
            Capability(name="soft-dirty", ok=False, value="no", remedy="", required=False),
            Capability(name="cgroup", ok=True, value="v2", remedy="", required=True),
        ),
    )
    host = Host(name="host1", address="10.0.0.1", port=22, reachable=True, error="", containers=0, facts=facts)
    assert hosts.row(host)[1] == "lacking"
    assert hosts.problems(host, verbose=False) == ["", "host1:", "  MISSING criu: not found  (apt install criu)"]
    assert len(hosts.problems(host, verbose=True)) == 5


# ---------------------------------------------------------------- errors


def test_an_error_is_told_with_everything_that_helps(monkeypatch: pytest.MonkeyPatch) -> None:
    """Message, detail, what was touched, hint; the exit status is the error's."""
    monkeypatch.delenv("MIGRATE_DEBUG", raising=False)
    file = io.StringIO()
    error = StepError("restore failed", hint="migrate repair 4f", detail="line 1\nline 2", touched="undone")
    assert failures.report(error, command="move", file=file) == 6
    assert file.getvalue().splitlines() == [
        "error: restore failed",
        "  | line 1",
        "  | line 2",
        "state: what had been changed was put back",
        "hint: migrate repair 4f",
    ]


def test_nothing_touched_is_not_news() -> None:
    """A wrong name needs no line about what has not happened."""
    assert failures.describe(NotFound("no container 'x'")) == "error: no container 'x'"


def test_a_mistake_of_ours_shows_no_traceback_unless_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """MIGRATE_DEBUG=1 shows it."""
    monkeypatch.delenv("MIGRATE_DEBUG", raising=False)

    def report() -> str:
        file = io.StringIO()
        try:
            raise ZeroDivisionError("oops")
        except ZeroDivisionError as exc:
            assert failures.report(exc, file=file) == 1
        return file.getvalue()

    assert report().startswith("error: ZeroDivisionError: oops\nhint: ")
    assert "Traceback" not in report()
    monkeypatch.setenv("MIGRATE_DEBUG", "1")
    assert "Traceback" in report()


@pytest.mark.parametrize(
    ("message", "code", "status"),
    [
        ("exec: sh: no such file in PATH=/bin", "container.start_failed", 127),
        ("cannot run the program: exec: sh: no such file", "container.exec_failed", 127),
        ("exec: /etc/passwd: Permission denied", "container.start_failed", 126),
        ("exec: ./x: Exec format error", "container.start_failed", 126),
        ("cwd: /nowhere: no such file", "container.start_failed", 125),
        ("no container", "container.not_found", 125),
    ],
)
def test_exit_codes_of_run_and_exec(message: str, code: str, status: int) -> None:
    """Docker's convention."""
    assert failures.exit_status(MigrateError(message, code=code), "run") == status
    assert failures.exit_status(MigrateError(message, code=code), "ps") == 1


# ---------------------------------------------------------------- moves


def test_lines_of_a_move_into_a_pipe() -> None:
    """One line a step with its time, bytes and rate; progress at most once a second; no control characters."""
    file = io.StringIO()
    view = progress.view(format="text", quiet=False, file=file)
    events = [
        _step("precheck", "started", 10),
        _step("precheck", "done", 10.2),
        _step("precopy", "started", 11),
        _progress("precopy", 50_000_000, 100_000_000, 11.5, "round 1"),
        _progress("precopy", 60_000_000, 100_000_000, 11.6, "round 1"),
        _progress("precopy", 100_000_000, 100_000_000, 13, "round 1"),
        _step("precopy", "done", 13),
        _step("saga", "committed", 4),
    ]
    for event in events:
        view.show(event)
    view.finish(RECORD)
    assert file.getvalue().splitlines() == [
        "precheck     200 ms",
        "precopy    round 1  50 MB of 100 MB  50 %  100 MB/s",
        "precopy    round 1  100 MB of 100 MB  100 %  50 MB/s",
        "precopy       2.0 s    100 MB     50 MB/s  round 1",
        "-- pivot: the target owns the container --",
        "web1 runs on host2: moved from host1 in 3.0 s, stood still 212 ms, "
        "sent 240 MB (memory 200 MB, writable layer 40 MB)",
    ]


def test_a_move_that_fails_shows_where_and_the_undo() -> None:
    """The failing step with its error, then each undone step; no summary."""
    file = io.StringIO()
    view = progress.view(format="text", quiet=False, file=file)
    for event in (
        _step("restore", "started", 0),
        _step("restore", "failed", 1, "no room"),
        _step("saga", "aborting", 1, "no room"),
        _step("restore", "undone", 2),
    ):
        view.show(event)
    view.finish(replace(RECORD, state="failed"))
    assert file.getvalue().splitlines() == [
        "restore    FAILED: no room",
        "undoing: no room",
        "restore    undone",
    ]


def test_on_a_terminal_the_running_line_is_redrawn() -> None:
    """A finished step's line replaces what was drawn of it; a pause leaves the line."""
    file = io.StringIO()
    view = progress.Lines(file, redraw=True)
    view.show(_step("precopy", "started", 10))
    view.show(_progress("precopy", 5, 10, 11))
    assert "\n" not in file.getvalue()
    view.pause()
    assert file.getvalue().endswith("\n")
    view.show(_progress("precopy", 6, 10, 11))
    view.show(_step("precopy", "done", 12))
    assert file.getvalue().split("\n")[-2].startswith("\r\x1b[Kprecopy")
    assert file.getvalue().endswith("B/s\n")


def test_json_lines_end_with_the_record() -> None:
    """Each line is an object of its own."""
    file = io.StringIO()
    view = progress.view(format="json", quiet=True, file=file)
    view.show(_step("precheck", "started", 10))
    view.show(_progress("precopy", 1, 2, 1))
    view.finish(RECORD)
    kinds = [json.loads(line)["type"] for line in file.getvalue().splitlines()]
    assert kinds == ["step", "progress", "record"]


def test_the_page_of_a_migration() -> None:
    """Head, error with its hint, journal with times from the beginning."""
    record: Any = replace(
        RECORD,
        state="failed",
        step="restore",
        reason="new disk",
        failure=Failure(code="criu", message="no", hint="look", touched="undone", detail="Error (x.c:1)"),
        journal=(_step("precheck", "started", 100), _step("precheck", "done", 100.25), _step("x", "failed", 101, "e")),
    )
    lines = migrations.describe(record).splitlines()
    assert "state:    failed (restore)" in lines
    assert "reason:   new disk" in lines
    assert "error:    no" in lines
    assert "  | Error (x.c:1)" in lines
    assert "hint:     look" in lines
    assert lines[-3:] == [
        "      0.000 s  precheck   started",
        "      0.250 s  precheck   done",
        "      1.000 s  x          failed: e",
    ]


def test_the_page_tells_each_round_of_memory() -> None:
    """A table of the rounds, why they ended, what was wished for; nothing where no memory was sent ahead."""
    each = [
        {"round": 1.0, "pages": 300.0, "sent_bytes": 1_230_000.0, "took_s": 1.5, "predicted_downtime_s": 1.7, "verdict": "go on"},
        {"round": 2.0, "pages": 5.0, "sent_bytes": 20_480.0, "took_s": 0.1, "dirty_bytes_per_s": 13_600.0, "cpu_share": 0.8,
         "predicted_downtime_s": 0.25, "verdict": "freeze: the rest fits 300 ms"},
    ]  # fmt: skip
    facts = {"rounds": 2.0, "text": "2 rounds of memory (soft-dirty): the rest fits 300 ms", "each_round": each}
    record = replace(
        RECORD, journal=(replace(_step("precopy", "done", 100), facts=facts),), max_downtime_s=0.3,
        precopy=PrecopyOptions(binding=True, on_timeout="pause", timeout_s=90, throttle=True, fixed_s=0.21),
    )  # fmt: skip
    lines = migrations.describe(record).splitlines()
    begin = lines.index("memory sent ahead:")
    assert lines[begin + 1].split() == ["ROUND", "PAGES", "SENT", "TIME", "WRITTEN", "CPU", "DOWNTIME", "VERDICT"]
    assert lines[begin + 2].split() == ["1", "300", "1.23", "MB", "1.5", "s", "-", "-", "1.7", "s", "go", "on"]
    assert lines[begin + 3].split()[:9] == ["2", "5", "20.5", "kB", "100", "ms", "13.6", "kB/s", "80%"]
    assert lines[begin + 3].endswith("250 ms    freeze: the rest fits 300 ms")
    assert lines[begin + 4 : begin + 6] == [
        "  2 rounds of memory (soft-dirty): the rest fits 300 ms",
        "  --max-downtime 300 ms is a limit, then pause; --timeout 90 s; --throttle; a freeze took 0.21 s without memory in earlier moves",
    ]
    assert rounds(replace(RECORD, journal=())) == []


def test_the_page_tells_the_rounds_of_a_move_that_was_given_up() -> None:
    """Why is its error."""
    facts = {"each_round": [{"round": 1.0, "pages": 300.0, "verdict": "abort: the time is up"}]}
    failed = replace(_step("precopy", "failed", 100), facts=facts, error="host1: the time is up")
    lines = rounds(replace(RECORD, journal=(failed,), max_downtime_s=0.3))
    assert lines[1].endswith("abort: the time is up")
    assert lines[2:] == ["  host1: the time is up", "  --max-downtime 300 ms is a wish"]
