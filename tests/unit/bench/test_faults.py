"""What the matrix of faults and the campaign are made of, where no lab is needed: the table, the plan of a seed, the witness."""

from __future__ import annotations

from itertools import islice
from pathlib import Path
from typing import cast

import pytest

from bench import chaos, faults
from bench.fault_cell import FaultLab, Outcome
from bench.fault_instants import Instant, instants
from bench.fault_table import FAULTS, Injury, parse
from bench.fault_tick import Heard
from bench.fault_watch import TICK_FILE, ticks_on_disk

pytestmark = pytest.mark.unit


def test_a_cell_is_read_as_it_is_written() -> None:
    injuries = parse("send: kill sender + undo: full /run source")
    assert [(each.instant, each.fault.name) for each in injuries] == [
        (Instant.SEND, "kill sender"),
        (Instant.UNDO, "full /run source"),
    ]
    assert [Injury.parse(str(each)) for each in injuries] == list(injuries)


@pytest.mark.parametrize("text", ["send: kill nobody", "never: kill sender"])
def test_a_cell_that_does_not_exist(text: str) -> None:
    with pytest.raises(ValueError):
        parse(text)


def test_a_seed_is_a_campaign() -> None:
    """The same cells in the same order; another seed has others; each has its faults in the order of a move."""
    first, again, other = (list(islice(chaos.plan(seed, long=True), 200)) for seed in (7, 7, 8))
    assert first == again
    assert first != other
    order = list(Instant)
    for mode, injuries in first:
        positions = [order.index(each.instant) for each in injuries]
        assert positions == sorted(set(positions))
        assert all(each.fault.fits(each.instant) for each in injuries)
        assert all(each.instant in (*instants(mode), Instant.UNDO) for each in injuries)
    assert {len(injuries) for _, injuries in first} == {1, 2}


def test_a_short_campaign_has_no_long_faults() -> None:
    found = [each.fault for _, injuries in islice(chaos.plan(7, long=False), 300) for each in injuries]
    assert max(each.lasts_s for each in found) <= 15


def test_a_failure_is_made_smaller() -> None:
    """Each fault alone, then the plain mode."""
    injuries = parse("send: kill sender + undo: kill coordinator")
    assert list(chaos.smaller(("postcopy", injuries))) == [
        ("postcopy", injuries[:1]),
        ("postcopy", injuries[1:]),
        ("auto", injuries),
    ]
    assert list(chaos.smaller(("postcopy", parse("following: kill sender")))) == []


class _Lab:
    """Where every cell with a fault of this name is wrong, but for the first time that it is tried alone."""

    def __init__(self, name: str) -> None:
        self._name, self.tried = name, list[str]()

    def injure(self, injuries: tuple[Injury, ...], *, mode: str) -> Outcome:
        outcome = Outcome(mode=mode, injuries=injuries)
        self.tried.append(f"{mode}, {outcome.name}")
        if any(each.fault.name == self._name for each in injuries) and self.tried.count(self.tried[-1]) > 1:
            outcome.wrong.append("two copies")
        return outcome


def test_what_fails_is_tried_again_with_less(capsys: pytest.CaptureFixture[str]) -> None:
    """Each smaller cell twice; the first that fails is made smaller in its turn."""
    lab = _Lab("kill coordinator")
    cell = ("postcopy", parse("send: kill sender + undo: kill coordinator"))
    mode, injuries = chaos.shrink(cast(FaultLab, lab), cell)
    assert (mode, [str(each) for each in injuries]) == ("auto", ["undo: kill coordinator"])
    assert lab.tried[:4] == ["postcopy, send: kill sender"] * 2 + ["postcopy, undo: kill coordinator"] * 2
    assert "shrinking" in capsys.readouterr().out


def test_the_matrix_counts() -> None:
    records = [
        {"cell": "send: kill sender", "verdict": "undone"},
        {"cell": "send: kill sender", "verdict": "undone"},
        {"cell": "send: kill sender", "verdict": "WRONG"},
        {"cell": "release: kill sender", "verdict": "moved"},
        {"cell": "send: kill sender + undo: cancel", "verdict": "undone"},  # not of one fault
    ]
    assert faults.matrix(records) == [
        "| fault | send | release |",
        "|---|---|---|",
        "| kill sender | undone 2, WRONG | moved |",
    ]


def _hear(*ticks: tuple[int, int]) -> dict[str, object]:
    heard = Heard()
    for order, (number, root) in enumerate(ticks, 1):
        heard.add(number, root, heard.since_ns + order)
    return heard.report()


def test_the_witness_of_a_move() -> None:
    assert _hear((1, 40), (2, 40), (3, 50)) == {"copies": 2, "last": 3, "heard": 3, "problems": []}


def test_the_witness_of_two_copies() -> None:
    """By turns, or with one number twice: each alone is enough."""
    assert _hear((1, 40), (2, 50), (3, 40))["problems"] == ["copies ran by turns: 3 turns of 2 copies"]
    assert _hear((1, 40), (2, 40), (2, 50))["problems"] == ["1 numbers came from two copies: [2]"]


def test_what_was_sent_before_the_last_report_is_of_another_cell() -> None:
    heard = Heard()
    heard.add(1, 40, heard.since_ns - 1)
    assert heard.report()["heard"] == 0


@pytest.mark.parametrize(
    ("text", "heard", "wrong"),
    [
        (b"1\n2\n3\n", 3, ""),
        (b"1\n2\n3", 2, ""),  # its last line is being written
        (b"1\n3\n", 3, "line 2 of 2 is b'3'"),
        (b"1\n2\n2\n", 2, "line 3 of 3 is b'2'"),
        (b"1\n2\n", 3, "number 3 was heard outside, the file ends at 2"),
    ],
)
def test_the_file_that_is_appended_to(tmp_path: Path, text: bytes, heard: int, wrong: str) -> None:
    path = tmp_path / TICK_FILE
    path.parent.mkdir()
    path.write_bytes(text)
    assert wrong in "".join(ticks_on_disk(tmp_path, heard))
    assert bool(ticks_on_disk(tmp_path, heard)) == bool(wrong)


def test_every_fault_has_an_instant() -> None:
    for fault in FAULTS.values():
        assert any(fault.fits(instant) for instant in instants("auto")), fault.name
