"""The samples of `bench.downtime`: as a file that grows case by case, and as text."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent import atomic
from bench import table
from bench.table import Sample

_ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True, kw_only=True)
class Result:
    """All moves of one case. `samples`: by way of moving, in order. `wrong`: what makes the run fail."""

    case: str
    title: str
    size_mb: int
    dirty_mb_s: float
    took_s: float
    load_before: float
    load_after: float
    samples: dict[str, list[Sample]]
    wrong: list[str]


def document(found: Sequence[Result], rate: float) -> dict[str, Any]:
    """With what the figures depend on."""
    return {
        "rate": rate,
        "cpus": os.cpu_count(),
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "kernel": platform.release(),
        "commit": _commit(),
        "day": time.strftime("%Y-%m-%d", time.gmtime()),
        "results": [dataclasses.asdict(result) for result in found],
    }


def _commit() -> str:
    command = ["git", "-C", str(_ROOT), "rev-parse", "--short", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def save(path: Path, result: Result, rate: float) -> None:
    """Put it into the file: in the place of an older one of that case, or at the end."""
    made = document([result], rate)
    kept = json.loads(path.read_text())["results"] if path.exists() else []
    names = [each["case"] for each in kept]
    if result.case in names:
        kept[names.index(result.case)] = made["results"][0]
    else:
        kept += made["results"]
    atomic.write(path, json.dumps({**made, "results": kept}, indent=1) + "\n")


def load(text: str) -> list[Result]:
    """The results of a document."""
    return [
        Result(
            **{
                **each,
                "samples": {way: [Sample(**one) for one in samples] for way, samples in each["samples"].items()},
            }
        )
        for each in json.loads(text)["results"]
    ]


def lines(found: Sequence[Result], rate: float) -> list[str]:
    """A table a case."""
    pace = f"{rate:g} requests a second" if rate else "as fast as it can"
    text = [f"one client, {pace}; {os.cpu_count()} CPUs; median (least-most); the number of moves is in the head"]
    for result in found:
        text += ["", *table.lines(result.title, result.samples)]
        text.append(
            f"{result.took_s:.0f} s; load average before {result.load_before:.1f}, after {result.load_after:.1f}"
        )
        text += [f"WRONG {each}" for each in result.wrong]
    return text
