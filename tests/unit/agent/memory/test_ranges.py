"""Arithmetic on page ranges, against Python's own sets."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.memory import ranges as module
from agent.memory.ranges import PAGE, Ranges, intersect, ranges, subtract, total_bytes, union

pytestmark = pytest.mark.unit

pairs = st.lists(
    st.tuples(st.integers(0, 60), st.integers(0, 8)).map(lambda p: (p[0] * PAGE, (p[0] + p[1]) * PAGE)), max_size=12
)


def pages(of: Ranges) -> set[int]:
    """Page numbers, one by one."""
    return {page for start, end in of.tolist() for page in range(start // PAGE, end // PAGE)}


def well_formed(of: Ranges) -> bool:
    """Sorted, disjoint, joined, none empty."""
    flat = of.ravel().tolist()
    return flat == sorted(flat) and len(set(flat)) == len(flat)


@given(pairs, pairs)
def test_set_algebra(a: list[tuple[int, int]], b: list[tuple[int, int]]) -> None:
    """Union, intersection and difference are those of the sets of pages, in canonical form."""
    left, right = ranges(a), ranges(b)
    for result, expected in (
        (union(left, right), pages(left) | pages(right)),
        (intersect(left, right), pages(left) & pages(right)),
        (subtract(left, right), pages(left) - pages(right)),
    ):
        assert pages(result) == expected
        assert well_formed(result)
        assert total_bytes(result) == len(expected) * PAGE


@given(pairs, pairs)
def test_difference_of_many_ranges(a: list[tuple[int, int]], b: list[tuple[int, int]]) -> None:
    """Sets of many ranges, which are looked at before they are cut, have the difference that sets of few have."""
    left, right = ranges(a), ranges(b)
    expected = subtract(left, right)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "_MANY", 0)
        assert subtract(left, right).tolist() == expected.tolist()


@given(pairs)
def test_pieces_that_come_in_order(a: list[tuple[int, int]]) -> None:
    """Single pages in order, a stretch of them once more at the end: the same ranges."""
    single = [(page * PAGE, page * PAGE + PAGE) for page in sorted(pages(ranges(a)))]
    assert ranges(single).tolist() == ranges(a).tolist()
    assert ranges(single + single[len(single) // 2 :]).tolist() == ranges(a).tolist()


@given(pairs)
def test_from_pairs(a: list[tuple[int, int]]) -> None:
    """Overlapping pairs in any order become sorted, disjoint, joined ranges of the same pages."""
    result = ranges(a)
    assert pages(result) == {page for start, end in a for page in range(start // PAGE, end // PAGE)}
    assert well_formed(result)


def test_few_beside_many_are_the_same_sets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where one side has few ranges only what lies near them is looked at; the answer is that of looking at all."""
    choose = random.Random(7)
    for turn in range(60):
        many = ranges([(at, at + 2 * PAGE) for at in range(0, 30000 * PAGE, choose.choice((3, 4)) * PAGE)])
        longest = 9 if turn % 2 else 4000
        starts = [choose.randrange(30000) for _ in range(choose.randrange(1, 40))]
        few = ranges([(start * PAGE, (start + choose.randrange(1, longest)) * PAGE) for start in starts])
        quick = [subtract(few, many), intersect(few, many), intersect(many, few)]
        with monkeypatch.context() as patch:
            patch.setattr("agent.memory.ranges._MANY", 1 << 62)
            whole = [subtract(few, many), intersect(few, many), intersect(many, few)]
        assert [each.tolist() for each in quick] == [each.tolist() for each in whole]
