"""Sets of pages cut into megabytes, and the number that stands for a page."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.memory.ranges import PAGE, ranges, total_bytes
from agent.transfer import page_digest, pages
from agent.transfer.writer import BATCH_BYTES

pytestmark = pytest.mark.unit

some_ranges = st.lists(st.tuples(st.integers(0, 30000), st.integers(1, 5000)), max_size=30).map(
    lambda pairs: ranges((start * PAGE, (start + count) * PAGE) for start, count in pairs)
)


@given(some_ranges)
def test_batches(of: np.ndarray) -> None:
    """Together they are what was cut, in order; each fits a buffer; it ends where nothing more fits or a batch's address begins."""
    parts = list(pages.batches(of))
    flat = [address for part in parts for address in pages.page_addresses(part).tolist()]
    assert flat == [address for start, end in of.tolist() for address in range(start, end, PAGE)]
    assert all(0 < total_bytes(part) <= BATCH_BYTES for part in parts)
    assert all(total_bytes(part) == BATCH_BYTES or part[-1, 1] % BATCH_BYTES == 0 for part in parts[:-1])
    long = sum((end - start) // BATCH_BYTES for start, end in of.tolist())
    aligned = sum(
        total_bytes(part) == BATCH_BYTES and part[0, 0] % BATCH_BYTES == 0 and len(part) == 1 for part in parts
    )
    assert aligned >= long - len(of)


@given(some_ranges)
def test_addresses_and_ranges(of: np.ndarray) -> None:
    assert pages.to_ranges(pages.page_addresses(of)).tolist() == of.tolist()


@given(st.binary(min_size=1, max_size=64), st.integers(0, PAGE - 64), st.integers(0, PAGE * 8 - 1))
def test_digests(data: bytes, offset: int, bit: int) -> None:
    """Equal pages are equal; one flipped bit is seen, wherever it is; the page of zeros is found, and no other."""
    raw = bytearray(PAGE)
    raw[offset : offset + len(data)] = data
    changed = bytearray(raw)
    changed[bit // 8] ^= 1 << bit % 8
    block = np.frombuffer(bytes(raw) + bytes(raw) + bytes(changed) + bytes(PAGE), np.uint64).reshape(4, -1)
    digests = page_digest.of(block)
    assert digests[0] == digests[1] != digests[2]
    assert page_digest.zero(block, digests).tolist() == [not any(page.tobytes()) for page in block]


def test_a_digest_of_nothing_that_is_not_zeros() -> None:
    """Two top bits cancel out in the sum: the page is looked at and is no page of zeros."""
    block = np.zeros((1, page_digest.WORDS), np.uint64)
    block[0, 5] = block[0, 7] = np.uint64(1 << 63)
    digests = page_digest.of(block)
    assert digests[0] == 0
    assert not page_digest.zero(block, digests).any()
