"""The two halves of a measurement of the tunnel, joined by pipes."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest

from agent.handover import link_probe

pytestmark = pytest.mark.unit

Ends = tuple[int, int, int, int]


@pytest.fixture
def ends() -> Iterator[Ends]:
    """(source's rx, source's tx, target's rx, target's tx)."""
    target_rx, source_tx = os.pipe()
    source_rx, target_tx = os.pipe()
    yield source_rx, source_tx, target_rx, target_tx
    for fd in (source_rx, target_rx, target_tx):
        os.close(fd)


def test_what_was_sent_is_counted_by_the_other_side(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    """Round trips first, then bytes up to the limit, then the count."""
    monkeypatch.setattr(link_probe, "SEND_BYTES", 5 << 20)
    monkeypatch.setattr(link_probe, "SEND_S", 30.0)
    source_rx, source_tx, target_rx, target_tx = ends
    target = threading.Thread(target=link_probe.answer, args=(target_rx, target_tx))
    target.start()
    assert link_probe.ping(source_rx, source_tx) > 0
    sent = link_probe.send(source_tx)
    os.close(source_tx)
    target.join(30)
    assert not target.is_alive()
    assert 5 << 20 <= sent.count < 6 << 20
    assert int.from_bytes(os.read(source_rx, 100), "little") == sent.count
    assert sent.took_s > 0


def test_a_slow_link_ends_by_time(ends: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody reads: only what the pipe takes is sent, and the sender comes back."""
    monkeypatch.setattr(link_probe, "SEND_S", 0.05)
    _, source_tx, _, _ = ends
    assert 0 < link_probe.send(source_tx).count <= 1 << 20
    os.close(source_tx)


def test_a_source_that_is_gone(ends: Ends) -> None:
    """An end of file instead of a ping."""
    _, source_tx, target_rx, target_tx = ends
    os.close(source_tx)
    with pytest.raises(BrokenPipeError):
        link_probe.answer(target_rx, target_tx)
