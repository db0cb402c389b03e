"""`migrate doctor LOG`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from migrate.cli.main import main

pytestmark = pytest.mark.unit

LOG = """(00.1) Warn  (criu/image.c:134): before
(00.2) Error (criu/files-ext.c:98): Can't dump file 11 of that type [600] (unknown anon_inode:[io_uring])
(00.3) Error (criu/cr-dump.c:2111): Dumping FAILED.
"""


def test_a_log_is_explained(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Error, cause, remedy, the check that finds it beforehand, where it was met, and the lines around it."""
    path = tmp_path / "dump.log"
    path.write_text(LOG)
    assert main(["doctor", str(path)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("error:  Can't dump file 11 of that type")
    for wanted in (
        "dump.log, line 2",
        "cause:  a process uses io_uring",
        "remedy: switch",
        "io-uring: migrate check",
        "criu#2131",
        "| (00.1)",
    ):
        assert wanted in out


def test_as_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All of the diagnosis, for programs."""
    path = tmp_path / "dump.log"
    path.write_text(LOG)
    assert main(["doctor", str(path), "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["rule"], found["known"], found["line"], found["check"]) == ("io-uring", True, 2, "io-uring")


def test_what_nobody_knows_is_exit_status_1(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The first error line and what is around it; never a guess."""
    path = tmp_path / "x.log"
    path.write_text("before\n(00.2) Error (criu/flux.c:9): Flux capacitor empty\nbehind\n")
    assert main(["doctor", str(path)]) == 1
    out = capsys.readouterr().out
    assert "Flux capacitor empty" in out
    assert "nobody knows" in out
    assert "| before" in out
    assert "| behind" in out


def test_a_log_without_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing failed: that is said, with the log's end, and is no failure."""
    path = tmp_path / "x.log"
    path.write_text("all is well\n")
    assert main(["doctor", str(path)]) == 0
    assert "no error in it" in capsys.readouterr().out


def test_a_file_that_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    """A path is never taken for the id of a move."""
    assert main(["doctor", "/nowhere/dump.log"]) == 1
    assert "/nowhere/dump.log" in capsys.readouterr().err


def test_the_hosts_configuration_is_of_no_use_for_a_log(capsys: pytest.CaptureFixture[str]) -> None:
    """Wrong usage says so."""
    assert main(["doctor", "4f2a", "--config", "/etc/x.toml"]) == 2
    assert "--config" in capsys.readouterr().err
