"""What a lazily restored process still lacks, against a plain dictionary of pages."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.criu.spaces import PAGE, Missing, Space

pytestmark = pytest.mark.unit

place = st.integers(0, 30)
length = st.integers(1, 6)
operations = st.lists(
    st.one_of(
        st.tuples(st.just("drop"), place, length, place),
        st.tuples(st.just("move"), place, length, st.integers(40, 90)),
    ),
    max_size=8,
)


def as_pages(space: Space) -> dict[int, int]:
    """{page of the process: page of the file}"""
    found: dict[int, int] = {}
    for r in space.ranges:
        assert r.start < r.end
        for at in range(r.start, r.end, PAGE):
            assert at // PAGE not in found, "ranges overlap"
            found[at // PAGE] = (at - r.shift) // PAGE
    return found


@given(st.lists(st.tuples(place, length), max_size=4), operations)
def test_drops_and_moves(start: list[tuple[int, int]], todo: list[tuple[str, int, int, int]]) -> None:
    """After any unmaps and mremaps each page still comes from where it was stored."""
    model: dict[int, int] = {}
    ranges: list[Missing] = []
    for first, count in start:
        if not any(page in model for page in range(first, first + count)):
            model |= {page: page for page in range(first, first + count)}
            ranges.append(Missing(first * PAGE, (first + count) * PAGE))
    space = Space(ranges)
    for what, first, count, to in todo:
        pages = range(first, first + count)
        if what == "drop":
            space.drop(first * PAGE, (first + count) * PAGE)
            model = {page: stored for page, stored in model.items() if page not in pages}
        else:
            space.move(first * PAGE, to * PAGE, count * PAGE)
            moved = {page - first + to: stored for page, stored in model.items() if page in pages}
            kept = {p: s for p, s in model.items() if p not in pages and p not in range(to, to + count)}
            model = kept | moved
        assert as_pages(space) == model
    assert space.missing_bytes == len(model) * PAGE
    assert bool(space) == bool(model)


def test_around_a_fault() -> None:
    """A fault brings the missing pages of its aligned window, and nothing where nothing is missing."""
    space = Space([Missing(2 * PAGE, 40 * PAGE)])
    assert space.around(5 * PAGE, 16 * PAGE) == Missing(2 * PAGE, 16 * PAGE)
    assert space.around(20 * PAGE, 16 * PAGE) == Missing(16 * PAGE, 32 * PAGE)
    assert space.around(40 * PAGE, 16 * PAGE) is None
    assert space.around(PAGE, 16 * PAGE) is None


def test_a_child_goes_its_own_way() -> None:
    """What a forked child gets does not change what its parent lacks."""
    parent = Space([Missing(0, 4 * PAGE)])
    child = parent.copy()
    child.drop(0, 4 * PAGE)
    assert parent.missing_bytes == 4 * PAGE
    assert not child
