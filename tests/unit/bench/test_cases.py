"""What --cases chooses, and what the program of the other shapes says of itself."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest

from bench import cases, shapes

pytestmark = pytest.mark.unit


def test_words_name_patterns_groups_and_any_redis() -> None:
    """Each case once, in the order of the words."""
    assert cases.choose(["quick"]) == list(cases.QUICK)
    assert [case.name for case in cases.choose(["redis-200", "redis-200*"])] == [
        "redis-200", "redis-200-dirty-1", "redis-200-dirty-20", "redis-200-dirty-100", "redis-200-dirty-300",
    ]  # fmt: skip
    assert len({case.name for case in cases.FULL}) == len(cases.FULL) == 25
    made = cases.choose(["redis-50-dirty-7"])[0]
    assert (made.size_mb, made.dirty_mb_s, made.name) == (50, 7.0, "redis-50-dirty-7")


@pytest.mark.parametrize("word", ["", "redis", "redis-x", "redis-0", "redis-10-wet-3", "tree", "redis-10-dirty--1"])
def test_a_word_that_means_nothing_is_refused_with_what_there_is(word: str) -> None:
    """Not skipped: a run that measures nothing would look like one that went well."""
    with pytest.raises(ValueError, match="there are quick, full"):
        cases.choose([word])


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[int, list[str]]]:
    """The port of bench/shapes.py with a check that answers what is in the list."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    monkeypatch.setattr(shapes, "PORT", port)
    wrong = [""]
    threading.Thread(target=shapes.serve, args=(lambda: wrong[0],), daemon=True).start()
    yield port, wrong


def _connect(port: int) -> socket.socket:
    for _ in range(100):
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=5)
        except ConnectionRefusedError:
            threading.Event().wait(0.02)
    raise AssertionError("it does not listen")


def test_it_answers_as_redis_does_and_tells_what_is_wrong(server: tuple[int, list[str]]) -> None:
    """INCR, also cut in two and two at once; CHECK is ":0" or "-" and the reason."""
    port, wrong = server
    request = b"*2\r\n$4\r\nINCR\r\n$12\r\ndemo:counter\r\n"
    with _connect(port) as client, client.makefile("rb") as replies:
        client.sendall(request[:9])
        client.sendall(request[9:] + request)
        assert [replies.readline(), replies.readline()] == [b":1\r\n", b":2\r\n"]
        client.sendall(b"CHECK\r\n")
        assert replies.readline() == b":0\r\n"
        wrong[0] = "a thread is gone"
        client.sendall(b"CHECK\r\n" + request)
        assert [replies.readline(), replies.readline()] == [b"-a thread is gone\r\n", b":3\r\n"]
