"""Which lines of a log are new when it is read again on another host."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from migrate.coordinator.streams import OVERLAP_NS, Seen
from protos import agent_pb2

pytestmark = pytest.mark.unit

LINES = st.lists(st.tuples(st.integers(0, 5), st.sampled_from([b"a\n", b"b\n"])), max_size=30)


def _chunk(unix_ns: int, data: bytes) -> agent_pb2.LogChunk:
    return agent_pb2.LogChunk(unix_ns=OVERLAP_NS + unix_ns, stream="stdout", data=data)


@given(before=LINES, after=LINES, cut=st.integers(0, 30))
def test_reading_again_gives_each_line_once(
    before: list[tuple[int, bytes]], after: list[tuple[int, bytes]], cut: int
) -> None:
    """Wherever the first reading was cut, and however equal the lines and their stamps are."""
    log = [_chunk(at, data) for at, data in before]
    seen = Seen()
    got = [chunk for chunk in log[:cut] if seen.deliver(chunk)]
    since = seen.restart()
    whole = log + [_chunk(at, data) for at, data in after]
    got += [chunk for chunk in whole if chunk.unix_ns >= since and seen.deliver(chunk)]
    assert sorted((c.unix_ns, c.data) for c in got) == sorted((c.unix_ns, c.data) for c in whole)


def test_what_is_remembered_is_bounded_by_time() -> None:
    """Lines older than the overlap are forgotten, and not asked for again."""
    seen = Seen()
    for second in range(60):
        assert seen.deliver(agent_pb2.LogChunk(unix_ns=second * 10**9, stream="stdout", data=b"x"))
    assert seen.restart() == 59 * 10**9 - OVERLAP_NS
    assert len(seen._order) == 11
