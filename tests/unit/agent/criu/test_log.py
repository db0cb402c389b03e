"""CRIU's log made readable."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.criu import log

pytestmark = pytest.mark.unit

HARMLESS = "(00.001000) Error (criu/util.c:1534): rlimit: Can't setup RLIMIT_NOFILE for self: Operation not permitted"


def test_the_first_error_that_matters(tmp_path: Path) -> None:
    """What every run says is passed over; the first real error comes without time and place, with its surroundings."""
    path = tmp_path / "dump.log"
    path.write_text(
        f"{HARMLESS}\nbefore\n(00.02) Error (criu/files.c:9): Can't dump ghost file of 300000000 size\nError: later\n"
    )
    found = log.first_error(path)
    assert found is not None
    assert found.error == "Can't dump ghost file of 300000000 size"
    assert "deleted file" in found.meaning
    assert found.remedy
    assert "before" in found.context


def test_errors_inside_the_restorer(tmp_path: Path) -> None:
    """Lines of the restorer and of inner pids lose their prefixes as well."""
    path = tmp_path / "restore.log"
    path.write_text(
        "(00.086778)      1: Error (criu/uffd.c:314): uffd: Unable to open an userfaultfd descriptor: Operation not permitted\n"
    )
    found = log.first_error(path)
    assert found is not None
    assert found.error.startswith("uffd: Unable")
    assert "unprivileged_userfaultfd" in found.remedy


def test_no_error(tmp_path: Path) -> None:
    """A log without errors, or no log, gives nothing rather than a guess."""
    path = tmp_path / "dump.log"
    path.write_text(HARMLESS)
    assert log.first_error(path) is None
    assert log.first_error(tmp_path / "none.log") is None


def test_an_unknown_error_keeps_its_words() -> None:
    """What nobody knows is not explained away."""
    assert log.explain("Flux capacitor empty") == log.Finding(error="Flux capacitor empty")
