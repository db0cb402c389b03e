"""The virtual environment's stamp and the link to the command."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path

import pytest

from agent.errors import Unsupported
from agent.setup import environment

pytestmark = pytest.mark.unit

PYTHON = """#!/bin/sh
# Stands in for python: answers the question for its version, makes an environment, installs nothing.
echo "$@" >> {log}
case "$*" in
*version_info*) echo {version} ;;
"-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && touch "$3/bin/migrate" ;;
*install*) exit {pip} ;;
esac
"""


class Checkout:
    """A checkout with an interpreter that writes down what it is asked to do."""

    def __init__(self, folder: Path, *, version: str = "3 11", pip: int = 0) -> None:
        self.path = folder / "checkout"
        self.path.mkdir()
        (self.path / "pyproject.toml").write_text("[project]\n")
        self.log = folder / "log"
        self.python = folder / "python3"
        self.python.write_text(PYTHON.format(log=self.log, version=version, pip=pip))
        self.python.chmod(0o755)

    def ensure(self) -> list[str]:
        """Calls of the interpreter that one run needs, "venv" and "install"."""
        self.log.unlink(missing_ok=True)
        environment.ensure(self.path, self.python)
        lines = self.log.read_text().splitlines() if self.log.exists() else []
        return [word for line in lines for word in ("venv", "install") if f" {word} " in f" {line} "]


def test_second_run_does_nothing(tmp_path: Path) -> None:
    """An environment is made and filled once."""
    checkout = Checkout(tmp_path)
    assert checkout.ensure() == ["venv", "install"]
    assert checkout.ensure() == []


def test_changed_dependencies_are_installed_into_the_same_environment(tmp_path: Path) -> None:
    """When pyproject.toml changes the packages are installed again, and the environment is kept."""
    checkout = Checkout(tmp_path)
    checkout.ensure()
    (checkout.path / "pyproject.toml").write_text("[project]\ndependencies = []\n")
    assert checkout.ensure() == ["install"]


def test_moved_checkout_gets_a_new_environment(tmp_path: Path) -> None:
    """An environment that came along with a copied checkout names the old path, so it is made anew."""
    checkout = Checkout(tmp_path)
    checkout.ensure()
    checkout.path = checkout.path.rename(tmp_path / "moved")
    assert checkout.ensure() == ["venv", "install"]


def test_failed_installation_is_tried_again(tmp_path: Path) -> None:
    """Where pip fails the error says so, and the next run does not take the environment for complete."""
    checkout = Checkout(tmp_path, pip=1)
    for _ in range(2):
        with pytest.raises(Unsupported, match=r"install .* failed"):
            checkout.ensure()


def test_bytecode_is_there_without_pythons_own_writing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Python may not write it, it is there all the same, and again after the source has changed."""
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")
    program = tmp_path / ".venv" / "bin" / "python"
    program.parent.mkdir(parents=True)
    program.symlink_to(sys.executable)
    for name in environment.PACKAGES:
        (tmp_path / name).mkdir()
    source = tmp_path / "migrate" / "ps.py"
    for seconds, text in ((1_700_000_000, "A = 1\n"), (1_700_000_009, "A = 'longer'\n")):
        source.write_text(text)
        os.utime(source, (seconds, seconds))
        environment.compile_sources(tmp_path)
        bytecode = Path(importlib.util.cache_from_source(str(source))).read_bytes()
        assert int.from_bytes(bytecode[12:16], "little") == len(text)  # PEP 552: the size of the source it was made of


def test_old_python_is_refused_with_its_version(tmp_path: Path) -> None:
    """Python 3.9 is named, and nothing is made."""
    checkout = Checkout(tmp_path, version="3 9")
    with pytest.raises(Unsupported, match=r"is Python 3\.9"):
        checkout.ensure()
    assert not (checkout.path / ".venv").exists()


def test_command_is_linked_and_follows_the_checkout(tmp_path: Path) -> None:
    """The link is made where nothing lies, and moved where it is one of ours."""
    command, program = tmp_path / "migrate", tmp_path / "new" / ".venv" / "bin" / "migrate"
    command.symlink_to(tmp_path / "old" / ".venv" / "bin" / "migrate")
    assert environment.link_command(tmp_path / "new", command)
    assert command.readlink() == program
    assert environment.link_command(tmp_path / "new", command) == ""


@pytest.mark.parametrize("kind", ["file", "link"])
def test_foreign_command_stays(tmp_path: Path, kind: str) -> None:
    """A `migrate` that is not ours is left alone."""
    command = tmp_path / "migrate"
    if kind == "file":
        command.write_text("theirs")
    else:
        command.symlink_to("/opt/theirs/migrate")
    assert environment.link_command(tmp_path / "checkout", command) == ""
    assert not command.is_symlink() or command.readlink() == Path("/opt/theirs/migrate")
