"""What `migrate move` and `migrate repair` show while they run: a line a step, the current one redrawn on a terminal."""

from __future__ import annotations

import json
import shutil
import sys
from typing import TYPE_CHECKING, Protocol, TextIO

from migrate.cli import tables
from migrate.records import Progress

if TYPE_CHECKING:
    from migrate.records import Event, Migration, Step

SAGA = "saga"  # the step name of journal rows about the whole move
WIDTH = 10  # of the column with the step's name
PLAIN_INTERVAL_NS = 1_000_000_000  # into a file or a pipe: at most one progress line in this time


class View(Protocol):
    """Shows events as they come, then the end of the move."""

    def show(self, event: Event) -> None: ...
    def finish(self, record: Migration) -> None: ...
    def pause(self) -> None:
        """Leave the current line: somebody else is going to write."""


def view(*, format: str, quiet: bool, file: TextIO | None = None) -> View:
    """The one that suits the options and the output."""
    file = file or sys.stdout
    if format == "json":
        return JsonLines(file)
    if quiet:
        return Quiet()
    return Lines(file, redraw=file.isatty())


class Quiet:
    """Only the exit status speaks, and errors do."""

    def show(self, event: Event) -> None:
        pass

    def finish(self, record: Migration) -> None:
        pass

    def pause(self) -> None:
        pass


class JsonLines(Quiet):
    """One object a line; "type" is "progress" or "step", and "record" in the last line."""

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def show(self, event: Event) -> None:
        self._write(type(event).__name__.lower(), event)

    def finish(self, record: Migration) -> None:
        self._write("record", record)

    def _write(self, kind: str, item: Event | Migration) -> None:
        print(json.dumps({"type": kind, **item.to_dict()}), file=self._file, flush=True)


class Lines:
    """For people. With `redraw` the line of the running step is rewritten in place."""

    def __init__(self, file: TextIO, *, redraw: bool) -> None:
        self._file = file
        self._redraw = redraw
        self._open = False  # the cursor is at the end of a line that will be rewritten
        self._started_ns: dict[str, int] = {}
        self._latest: dict[str, Progress] = {}
        self._printed_ns: dict[str, int] = {}

    def show(self, event: Event) -> None:
        if isinstance(event, Progress):
            self._progress(event)
        else:
            self._step(event)

    def _progress(self, event: Progress) -> None:
        phase = event.phase
        self._latest[phase] = event
        self._started_ns.setdefault(phase, event.unix_ns)
        line = f"{phase:<{WIDTH}} {running(event, self._started_ns[phase])}"
        if self._redraw:
            self._rewrite(line)
        elif phase not in self._printed_ns or event.unix_ns - self._printed_ns[phase] >= _interval_ns(phase):
            self._printed_ns[phase] = event.unix_ns
            self._line(line)

    def _step(self, event: Step) -> None:
        if event.step == SAGA:
            text = {
                "aborting": aborting(event),
                "committed": "-- pivot: the target owns the container --",
                "cancel_requested": "asked to cancel",
                "commit_requested": "asked to switch over",
            }.get(event.event)
            if text:
                self._line(text)
            return
        name = event.step
        if event.event == "started":
            self._started_ns[name] = event.unix_ns
            if name == "hold":
                what = f"all is ready: migrate commit {event.migration_id} switches over, migrate cancel gives up"
                self._line(f"{name:<{WIDTH}} {what}")
            elif self._redraw:
                self._rewrite(f"{name:<{WIDTH}} ...")
        elif event.event == "done" and name == "rest" and name not in self._latest:
            pass  # post-copy's step, and no memory was kept back
        elif event.event == "done":
            self._line(f"{name:<{WIDTH}} {finished(event, self._started_ns.get(name, 0), self._latest.get(name))}")
        else:
            word = {"failed": "FAILED", "undone": "undone", "undo_failed": "UNDO FAILED"}.get(event.event, event.event)
            self._line(f"{name:<{WIDTH}} {word}{f': {event.error}' if event.error else ''}")

    def finish(self, record: Migration) -> None:
        if record.state == "succeeded":
            self._line(summary(record))
        if record.rehearsal and record.state == "rehearsed":
            for line in rehearsed(record):
                self._line(line)

    def pause(self) -> None:
        if self._open:
            print(file=self._file, flush=True)
            self._open = False

    def _rewrite(self, line: str) -> None:
        columns = shutil.get_terminal_size().columns
        print(f"\r\x1b[K{line[: columns - 1]}", end="", file=self._file, flush=True)
        self._open = True

    def _line(self, line: str) -> None:
        print(f"\r\x1b[K{line}" if self._open else line, file=self._file, flush=True)
        self._open = False


def aborting(event: Step) -> str:
    """Of a rehearsal it is no failure."""
    if event.facts.get("rehearsed"):
        return "-- no pivot: this was a rehearsal, its copy is thrown away --"
    return f"undoing{f': {event.error}' if event.error else ''}"


def rehearsed(record: Migration) -> list[str]:
    """What a rehearsal has found out, for people."""
    facts = record.facts
    tried = next((row.facts for row in record.journal if (row.step, row.event) == ("try", "done")), {})
    lines = [f"{record.container} could move to {record.target}: {tried.get('text', 'its copy was well')}"]
    if "rehearsed_downtime_s" in facts:
        parts = [
            f"{name} {tables.seconds(facts[key])}"
            for name, key in (("dump", "dump_s"), ("transfer", "transfer_s"), ("restore", "restore_s"))
            if key in facts
        ]
        lines.append(
            f"  it would stand still for about {tables.seconds(facts['rehearsed_downtime_s'])} ({', '.join(parts)}); "
            f"check predicts {tables.seconds(facts['predicted_downtime_s'])}"
        )
    if "source_frozen_s" in facts:
        lines.append(
            f"  it stood still for {tables.seconds(facts['source_frozen_s'])} and runs on {record.source} as before"
        )
    sent = sum(record.sent_bytes.values())
    lines.append(f"  sent {tables.size(sent)}; nothing is left on {record.target}")
    return lines


def _interval_ns(phase: str) -> int:
    """A move may hold for hours."""
    return 60 * PLAIN_INTERVAL_NS if phase == "hold" else PLAIN_INTERVAL_NS


def running(event: Progress, started_ns: int) -> str:
    """ "round 2   120 MB of 300 MB  40 %  310 MB/s"."""
    parts = [event.text] if event.text else []
    if event.total_bytes:
        share = f"{100 * event.done_bytes // event.total_bytes} %"
        parts.append(f"{tables.size(event.done_bytes)} of {tables.size(event.total_bytes)}  {share}")
    elif event.done_bytes:
        parts.append(tables.size(event.done_bytes))
    rate_ = rate(event.done_bytes, started_ns, event.unix_ns)
    if rate_:
        parts.append(rate_)
    return "  ".join(parts) or "..."


def finished(event: Step, started_ns: int, latest: Progress | None) -> str:
    """ "1.2 s  240 MB  201 MB/s": time, and what was moved where anything was."""
    parts = [f"{tables.seconds((event.unix_ns - started_ns) / 1e9):>8}" if started_ns else f"{'done':>8}"]
    if latest is not None and latest.done_bytes:
        parts.append(f"{tables.size(latest.done_bytes):>8}")
        rate_ = rate(latest.done_bytes, started_ns, event.unix_ns)
        if rate_:
            parts.append(f"{rate_:>10}")
    if latest is not None and latest.text:
        parts.append(latest.text)
    return "  ".join(parts)


def rate(done_bytes: int, from_ns: int, to_ns: int) -> str:
    """ "310 MB/s", "" where there is nothing to divide."""
    span_s = (to_ns - from_ns) / 1e9
    return f"{tables.size(done_bytes / span_s)}/s" if done_bytes and from_ns and span_s > 0.001 else ""


def summary(record: Migration) -> str:
    """ "web1 runs on host2: moved from host1 in 3.2 s, stood still 212 ms, sent 240 MB (memory 200 MB, ...)"."""
    facts = record.facts
    total_s = facts.get("total_s", (record.finished_unix_ns - record.started_unix_ns) / 1e9)
    parts = [f"moved from {record.source} in {tables.seconds(total_s)}"]
    if "downtime_s" in facts:
        parts.append(f"stood still {tables.seconds(facts['downtime_s'])}")
    sent = {kind: count for kind, count in sorted(record.sent_bytes.items(), key=lambda kind: -kind[1]) if count}
    if sent:
        kinds = ", ".join(f"{kind.replace('_', ' ')} {tables.size(count)}" for kind, count in sent.items())
        parts.append(f"sent {tables.size(sum(sent.values()))} ({kinds})")
    return f"{record.container} runs on {record.target}: {', '.join(parts)}"
