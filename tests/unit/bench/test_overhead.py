"""The tables of bench.start and bench.overhead, and what the latter measures with."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench import overhead, overhead_work, start

pytestmark = pytest.mark.unit


def test_ratios_say_what_is_left_of_the_hosts() -> None:
    """A rate is divided by the host's, the host's time by the container's: below 1 the container is worse."""
    samples = {
        "host": {"copy": [2.0, 4.0, 3.0], "round trip": [20.0]},
        "container": {"copy": [1.5], "round trip": [40.0]},
        "published": {"round trip": [10.0]},
    }
    full = {figure.key: [1.0] for figure in overhead.FIGURES}
    lines = overhead.lines({**samples, "host": full | samples["host"]})
    assert lines[0].split() == ["median", "of", "3", "host", "container", "published"]
    (copy,) = [line for line in lines if line.startswith("memory: copy")]
    assert copy.split()[-4:] == ["3.00", "1.50", "(0.50)", "-"]
    (trip,) = [line for line in lines if line.startswith("TCP: round trip")]
    assert trip.split()[-5:] == ["20", "40", "(0.50)", "10", "(2.00)"]


def test_work_measures_what_its_words_name(tmp_path: Path) -> None:
    """Every figure of the table comes from one of the program's verbs, started as the bench starts it."""
    done = subprocess.run(
        [sys.executable, "-c", overhead.WORK, "memory"], capture_output=True, text=True, check=True
    ).stdout
    assert set(json.loads(done)) == {"copy", "touch"}
    assert min(json.loads(done).values()) > 0
    assert {"read", "write"} == set(overhead_work.disk(str(tmp_path)))
    assert not list(tmp_path.iterdir()), "its file goes with it"


def test_start_shows_medians_and_parts() -> None:
    """The whole in milliseconds with the spread, the CPU time, and a line for each part."""
    one = start.Subject(name="engine", once=dict, cpu_s=lambda: 0.0)
    one.samples = [{"start": 0.010, "": 0.030}, {"start": 0.020, "": 0.010}, {"start": 0.015, "": 0.020}]
    one.cpu_samples = [0.004, 0.006, 0.005]
    head, whole, part = start.lines([one])
    assert head.split() == ["median", "of", "3", "(least-most)", "CPU", "ms"]
    assert whole.split() == ["engine", "ms", "20.0", "(10.0-30.0)", "5.0"]
    assert part.split() == ["start", "ms", "15.0"]
