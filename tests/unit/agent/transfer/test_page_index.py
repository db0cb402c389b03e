"""What is known of pages, taken in a few at a time: as a dictionary would have it."""

from __future__ import annotations

import numpy as np
import pytest

from agent.transfer.page_index import TaskPages

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("seed", range(20))
def test_few_pages_are_taken_in_as_many_are(seed: int) -> None:
    """The last note of a page holds; the order stays that of the addresses; an index that may not be written is copied first."""
    choose = np.random.default_rng(seed)
    known, expected = TaskPages(), {}
    for turn in range(8):
        for _ in range(int(choose.integers(1, 4))):
            few = int(choose.integers(1, 400 if turn == 0 else 20))
            addresses = np.unique(choose.integers(0, 500, few)).astype(np.uint64) * np.uint64(4096)
            digests, places = (choose.integers(0, 99, len(addresses)).astype(np.uint64) for _ in range(2))
            known.note(addresses, digests, places)
            expected |= {int(a): (int(d), int(p)) for a, d, p in zip(addresses, digests, places, strict=True)}
        known.settle()
        for array in (known.addresses, known.digests, known.places):
            array.flags.writeable = bool(turn % 2)
        found = zip(known.addresses.tolist(), known.digests.tolist(), known.places.tolist(), strict=True)
        assert {a: (d, p) for a, d, p in found} == expected
        assert (np.diff(known.addresses) > 0).all()
