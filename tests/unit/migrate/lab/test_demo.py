"""The demo's client, data and report: they must notice what is wrong."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from migrate.lab import client, data, demo_report
from migrate.lab.demo_run import CheckFailed, Checks, Seen
from migrate.records import Migration, Step

pytestmark = pytest.mark.unit


@contextmanager
def server(answer: Callable[[int], bytes]) -> Iterator[int]:
    """A server that answers the n-th request with `answer(n)`; b"" closes the connection. Yields its port."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            number = 0
            while connection.recv(65536):
                number += 1
                reply = answer(number)
                if not reply:
                    return
                connection.sendall(reply)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        listener.close()
        thread.join()


def talk(answer: Callable[[int], bytes], times: int) -> client.Since:
    with server(answer) as port:
        connection = client.Connection("127.0.0.1", port)
        try:
            for _ in range(times):
                connection.ask()
        finally:
            connection._replies.close()
            connection._socket.close()
        return connection.since


def test_client_counts_answers_that_follow_one_another() -> None:
    """Each answer one more than the last: no problem, and the value is the last answer."""
    since = talk(lambda number: b":%d\r\n" % number, 5)
    assert (since.replies, since.value, since.problems) == (5, 5, [])
    assert since.longest_gap_s > 0


@pytest.mark.parametrize("third", [2, 4, 1])
def test_client_notices_a_lost_or_repeated_answer(third: int) -> None:
    """An answer that repeats, jumps or begins anew is a problem, once."""
    answers = [1, 2, third, third + 1]
    since = talk(lambda number: b":%d\r\n" % answers[number - 1], 4)
    assert len(since.problems) == 1
    assert "not 3" in since.problems[0]


def test_client_notices_a_closed_connection() -> None:
    """A connection that ends is the end; it is not opened again."""
    with pytest.raises(EOFError):
        talk(lambda number: b"" if number == 3 else b":%d\r\n" % number, 5)


def test_values_follow_from_the_seed() -> None:
    """The same key has the same value each time, another key or seed another one."""
    assert data.value("seed", 1) == data.value("seed", 1)
    assert len({data.value("seed", 1), data.value("seed", 2), data.value("other", 1)}) == 3
    assert len(data.value("seed", 1)) == data.VALUE_BYTES


@pytest.mark.parametrize(
    ("found", "missing", "wrong"),
    [(data.value("seed", 0), 0, 0), (None, 1, 0), (b"x" * data.VALUE_BYTES, 0, 1)],
)
def test_verify_notices_missing_and_changed_values(found: bytes | None, missing: int, wrong: int) -> None:
    """One key that is gone or differs is counted as such."""
    bulk = b"$-1\r\n" if found is None else b"$%d\r\n%s\r\n" % (len(found), found)
    left, right = socket.socketpair()
    with left, right:
        right.sendall(bulk + b":2\r\n")
        verified = data.verify(left, 0, "seed")
    assert (verified["keys"], verified["missing"], verified["wrong"]) == (1, missing, wrong)


def record(**changes: object) -> Migration:
    step = Step(migration_id="m", step="freeze", event="started", unix_ns=1_000_000_000, facts={}, error="")
    done = Step(migration_id="m", step="freeze", event="done", unix_ns=1_250_000_000, facts={}, error="")
    fields: dict[str, object] = {
        "id": "m",
        "container_id": "c",
        "container": "web1",
        "source": "host1",
        "target": "host2",
        "state": "succeeded",
        "step": "saga",
        "reason": "",
        "mode": "auto",
        "failure": None,
        "epoch": 1,
        "started_unix_ns": 900_000_000,
        "finished_unix_ns": 2_000_000_000,
        "journal": (step, done),
        "facts": {"total_s": 1.1},
        "sent_bytes": {"memory": 1_000_000},
        "marks": (),
    }
    return Migration(**{**fields, **changes})  # type: ignore[arg-type]


def seen(**changes: object) -> Seen:
    fields: dict[str, object] = {
        "port": 4000,
        "value": 10,
        "began_unix_ns": 1,
        "replies": 10,
        "longest_gap_s": 0.2,
        "longest_gap_unix_ns": 1,
        "problems": [],
    }
    return Seen(**{**fields, **changes})  # type: ignore[arg-type]


def test_report_shows_times_bytes_and_the_longest_wait(capsys: pytest.CaptureFixture[str]) -> None:
    """A reader sees how long each step took, what was sent, and the longest wait outside."""
    demo_report.show(record(), seen(), seen(longest_gap_s=0.31))
    text = capsys.readouterr().out
    for wanted in ("freeze          250 ms", "memory               1.00 MB", "310 ms"):
        assert wanted in text


def test_good_move_passes() -> None:
    """A record and a client without a fault pass every check."""
    demo_report.check_move(Checks(), record(), "host1 to host2")
    demo_report.check_client(Checks(), record(), 4000, seen(), seen())
    demo_report.check_data(Checks(), {"keys": 3, "missing": 0, "wrong": 0, "total_keys": 4})


@pytest.mark.parametrize("change", [{"state": "failed"}, {"target": "host3"}])
def test_bad_record_fails(change: dict[str, object]) -> None:
    """A move that did not succeed, or went elsewhere, stops the demo."""
    with pytest.raises(CheckFailed):
        demo_report.check_move(Checks(), record(**change), "host1 to host2")


@pytest.mark.parametrize(
    ("during", "after"),
    [
        ({"problems": ["the answer was 3"]}, {}),
        ({"began_unix_ns": 950_000_000}, {}),
        ({}, {"replies": 0}),
        ({}, {"port": 4001}),
    ],
)
def test_bad_client_fails(during: dict[str, object], after: dict[str, object]) -> None:
    """A wrong answer, a client that began late or stopped, another connection: each stops the demo."""
    with pytest.raises(CheckFailed):
        demo_report.check_client(Checks(), record(), 4000, seen(**during), seen(**after))


@pytest.mark.parametrize("change", [{"missing": 1}, {"wrong": 1}, {"total_keys": 3}])
def test_bad_data_fails(change: dict[str, int]) -> None:
    """A missing or changed value, or a missing counter, stops the demo."""
    with pytest.raises(CheckFailed):
        demo_report.check_data(Checks(), {"keys": 3, "missing": 0, "wrong": 0, "total_keys": 4, **change})
