"""Style, types and generated code, as tests: what they find is found before a review."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.unit

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = [name for name in ("agent", "migrate", "tests", "bench") if (ROOT / name).is_dir()]


def run(*argv: str) -> None:
    """Run a Python module of the virtual environment in the checkout; its output is the failure's message."""
    done = subprocess.run([sys.executable, "-m", *argv], cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, f"{' '.join(argv)}\n{done.stdout}{done.stderr}"


def test_ruff_finds_nothing() -> None:
    """`ruff check` passes with the rules of pyproject.toml."""
    run("ruff", "check", "--quiet", *FOLDERS)


def test_code_is_formatted() -> None:
    """`ruff format` would change nothing; `make fmt` repairs it."""
    run("ruff", "format", "--check", "--quiet", *FOLDERS)


def test_types_are_sound() -> None:
    """`mypy --strict` passes on the packages."""
    run("mypy")


def test_generated_code_is_up_to_date(tmp_path: Path) -> None:
    """The code in protos/ is what protoc makes of the .proto files; `make protos` repairs it."""
    outputs = [f"--{kind}_out={tmp_path}" for kind in ("python", "pyi", "grpc_python")]
    definitions = sorted(str(path.relative_to(ROOT)) for path in (ROOT / "protos").glob("*.proto"))
    run("grpc_tools.protoc", "-I.", *outputs, *definitions)
    made = {path.name: path.read_text() for path in (tmp_path / "protos").iterdir()}
    kept = {path.name: path.read_text() for path in (ROOT / "protos").glob("*_pb2*.py*")}
    assert made.keys() == kept.keys()
    stale = [name for name, text in made.items() if kept[name] != text]
    assert not stale, f"make protos: {', '.join(stale)}"
