"""tests/conftest.py itself: a tier that did not run, or a skip without a true reason, fails the run."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A checkout with our conftest and configuration, a host that lacks one capability, and no tests yet."""
    tests = tmp_path / "tests"
    for tier in ("unit", "criu"):
        (tests / tier).mkdir(parents=True)
        (tests / tier / "__init__.py").touch()
    (tests / "__init__.py").touch()
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    shutil.copy(ROOT / "tests" / "conftest.py", tests / "real.py")
    (tests / "conftest.py").write_text(
        "from agent.setup.capability import Capability\n"
        "from tests.real import *\n"
        "from tests import real\n"
        "def make(name, ok): return Capability(name=name, ok=ok, value='told')\n"
        "real.probe.probe = lambda: [make('absent', False), *(make(name, True) for name in real.NEEDS['criu'])]\n"
    )
    return tmp_path


def run(project: Path, require: str, *options: str, **tests: str) -> tuple[int, str]:
    """Write tests/TIER/test_it.py for each of `tests`, run pytest with `options`; its exit status and output."""
    for tier, text in tests.items():
        (project / "tests" / tier / "test_it.py").write_text("import pytest\n" + text)
    argv = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", f"--require-tiers={require}", *options]
    done = subprocess.run(argv, cwd=project, env={"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout + done.stderr


def test_everything_ran(project: Path) -> None:
    """Where each tier has a test that passed the run passes, quick tiers first; a folder gives the tier."""
    status, output = run(project, "unit,criu", criu="def test_c(): pass\n", unit="def test_u(): pass\n")
    assert status == 0, output
    assert output.index("tests/unit/test_it.py") < output.index("tests/criu/test_it.py")


def test_tier_without_a_passed_test_fails(project: Path) -> None:
    """A required tier that collected nothing fails the run and is named."""
    status, output = run(project, "unit,criu", unit="def test_u(): pass\n")
    assert status == 1
    assert "tier criu: not one test passed" in output


def test_skip_for_a_capability_that_is_missing_is_accepted(project: Path) -> None:
    """The reason names what the host really lacks: the run passes and prints it."""
    status, output = run(project, "unit", unit='def test_u(): pass\n@pytest.mark.needs("absent")\ndef test_s(): pass\n')
    assert status == 0, output
    assert "1 skipped: 1 for missing capability: absent (told)" in output


@pytest.mark.parametrize(
    ("reason", "complaint"),
    [
        ("slow", "must begin with 'missing capability: '"),
        ("missing capability: overlayfs", "this machine has it"),
        ("missing capability: luck", "no probe is called 'luck'"),
    ],
)
def test_skip_for_another_reason_fails(project: Path, reason: str, complaint: str) -> None:
    """A skip must name a capability, one that is probed, and one that is really missing."""
    status, output = run(project, "unit", unit=f"def test_u(): pass\ndef test_s(): pytest.skip({reason!r})\n")
    assert status == 1
    assert complaint in output


def test_several_processes_are_judged_as_one(project: Path) -> None:
    """make test spreads files over processes: each tier is counted once, and a test or a file that skips itself is judged."""
    several = ("--numprocesses=2", "--dist=loadfile")
    passed = "def test_one(): pass\ndef test_two(): pass\n"
    status, output = run(project, "unit,criu", *several, unit=passed, criu=passed)
    assert status == 0, output
    assert [line.split() for line in output.splitlines() if line.endswith(" passed") and "unit" in line] == [
        ["unit", "2", "passed"]
    ]
    status, output = run(
        project, "unit,criu", *several, unit=passed, criu='pytest.skip("l", allow_module_level=True)\n'
    )
    assert status == 1
    assert "tier criu: not one test passed" in output
    assert "skipped for no good reason: 'l'" in output
    status, output = run(
        project, "unit,criu", *several, unit=passed, criu=passed + "def test_s(): pytest.skip('slow')\n"
    )
    assert status == 1
    assert "tier criu: skipped for no good reason: 'slow'" in output


def test_skipped_file_fails(project: Path) -> None:
    """A whole file that skips itself is judged like a test."""
    text = 'pytest.skip("later", allow_module_level=True)\n'
    status, output = run(project, "unit", criu=text, unit="def test_u(): pass\n" + text)
    assert status == 1
    assert "'later'" in output
