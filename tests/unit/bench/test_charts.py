"""Samples as tables and charts: what is drawn is what was measured, and running it again changes nothing."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from bench import charts, results
from bench.results import Result
from bench.table import FLOOR, HAND, Sample

pytestmark = pytest.mark.unit


def _result(case: str, *, dirty: float = 0.0, **samples: list[Sample]) -> Result:
    return Result(
        case=case, title=case, size_mb=10, dirty_mb_s=dirty, took_s=1.0, load_before=1.0, load_after=1.0,
        samples={"by hand" if way == "hand" else way: each for way, each in samples.items()}, wrong=[],
    )  # fmt: skip


IDLE = _result(
    "redis-10", auto=[Sample(gap_s=0.2), Sample(gap_s=0.4)], hand=[Sample(gap_s=1.0)], floor=[Sample(frozen_s=0.1)]
)
TREE = _result("tree-50", auto=[Sample(error="no room")], hand=[Sample(gap_s=2.0, cpu_s=3.0)])


def test_figures_are_medians_and_a_failed_way_has_none() -> None:
    """None is a missing bar, not one of length zero."""
    assert charts.figures([IDLE, TREE], "gap_s", 1e3) == {"auto": [pytest.approx(300), None], HAND: [1000.0, 2000.0]}


def test_charts_are_svg_with_the_cases_and_the_floor() -> None:
    """A kind of case without a case has no file."""
    made = charts.charts([IDLE, TREE])
    assert set(made) == {"gap-idle.svg", "cpu-idle.svg", "gap-shapes.svg", "cpu-shapes.svg"}
    for picture in made.values():
        assert ET.fromstring(picture).tag == "{http://www.w3.org/2000/svg}svg"
    assert b"redis-10" in made["gap-idle.svg"]
    assert FLOOR.encode() in made["gap-idle.svg"]
    assert b"http://kozea" not in made["gap-idle.svg"]  # no script is fetched by who looks at it


def test_the_page_keeps_all_but_what_is_between_the_marks(tmp_path: Path) -> None:
    """Twice gives the same page; a case that is measured again takes its old place."""
    (tmp_path / "charts").mkdir()
    (tmp_path / "bench.md").write_text(f"before\n{charts.BEGIN}\nold\n{charts.END}\nafter\n")
    assert charts.main(["--docs", str(tmp_path)]) == 1  # nothing was measured yet
    for result in (IDLE, TREE, IDLE):
        results.save(tmp_path / "charts/downtime.json", result, 200.0)
    assert charts.main(["--docs", str(tmp_path)]) == 0
    page = (tmp_path / "bench.md").read_text()
    assert page.startswith("before\n")
    assert page.endswith("\nafter\n")
    assert "old" not in page
    assert page.count("redis-10  ") == 1
    assert "auto FAILED: no room" in page
    pictures = {path.name: path.read_bytes() for path in (tmp_path / "charts").glob("*.svg")}
    assert charts.main(["--docs", str(tmp_path)]) == 0
    assert (tmp_path / "bench.md").read_text() == page
    assert {path.name: path.read_bytes() for path in (tmp_path / "charts").glob("*.svg")} == pictures
    with pytest.raises(ValueError, match="has no"):
        charts.replaced("no marks", "part")
