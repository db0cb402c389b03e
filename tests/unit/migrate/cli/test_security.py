"""The options that say what stands between a container and its host."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from migrate.cli import security
from migrate.records import Device, Isolation

pytestmark = pytest.mark.unit


def parsed(*words: str) -> Isolation:
    parser = argparse.ArgumentParser(exit_on_error=False)
    security.add_options(parser)
    isolation: Isolation = security.fields(parser.parse_args(words))["isolation"]
    return isolation


def test_nothing_said_is_the_default() -> None:
    """Without options a container has everything of its own, the default filter and no new privileges."""
    assert parsed() == Isolation()


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("no-new-privileges", False),
        ("no-new-privileges=true", False),
        ("no-new-privileges:true", False),
        ("no-new-privileges=false", True),
        ("no-new-privileges:false", True),
    ],
)
def test_no_new_privileges(option: str, expected: bool) -> None:
    """It is on unless it is switched off."""
    assert parsed("--security-opt", option).new_privileges is expected


def test_a_profile_is_sent_as_text(tmp_path: Path) -> None:
    """The file is the caller's: what is sent is what is in it."""
    (tmp_path / "p.json").write_text('{"defaultAction": "SCMP_ACT_ALLOW"}')
    assert parsed("--security-opt", f"seccomp={tmp_path}/p.json").seccomp == '{"defaultAction": "SCMP_ACT_ALLOW"}'
    assert parsed("--security-opt", "seccomp=unconfined").seccomp == "unconfined"
    assert parsed("--security-opt", "seccomp=builtin").seccomp == ""


@pytest.mark.parametrize(
    ("option", "words"),
    [
        ("seccomp=/no/such/file", "opening seccomp profile"),
        ("seccomp=", "is not seccomp=FILE"),
        ("no-new-privileges=maybe", "no-new-privileges=true"),
        ("apparmor=unconfined", "there is here"),
        ("nonsense", "is not seccomp=FILE"),
    ],
)
def test_what_is_wrong_is_said(option: str, words: str) -> None:
    """A wrong option is an error that names it, before anything is asked of anybody."""
    with pytest.raises(argparse.ArgumentError, match=words):
        parsed("--security-opt", option)


@pytest.mark.parametrize(
    ("option", "expected"),
    [
        ("/dev/fuse", Device(source="/dev/fuse", target="/dev/fuse")),
        ("/dev/a:/dev/b", Device(source="/dev/a", target="/dev/b")),
        ("/dev/a:r", Device(source="/dev/a", target="/dev/a", permissions="r")),
        ("/dev/a:/dev/b:rw", Device(source="/dev/a", target="/dev/b", permissions="rw")),
    ],
)
def test_devices(option: str, expected: Device) -> None:
    """As Docker writes them."""
    assert parsed("--device", option).devices == (expected,)


def test_namespaces_and_parameters() -> None:
    """host is the host's; the names of the default are the default."""
    found = parsed(
        "--pid", "host", "--ipc", "private", "--uts", "host", "--userns", "auto", "--sysctl", "net.core.somaxconn=9"
    )
    assert found == Isolation(pid="host", uts="host", sysctls={"net.core.somaxconn": "9"})
    assert security.warnings(found) == []
    assert "host" in security.warnings(parsed("--userns=host"))[0]


@pytest.mark.parametrize(
    "words",
    [("--device", "fuse"), ("--device", "/dev/a:x"), ("--device", "/dev/a:/dev/b:/dev/c"), ("--pid", "container:web1"), ("--uts", "mine"),
     ("--sysctl", "net.core.somaxconn")],
)  # fmt: skip
def test_wrong_values_are_errors(words: tuple[str, ...]) -> None:
    """Before anything is asked of anybody."""
    with pytest.raises(argparse.ArgumentError):
        parsed(*words)
