"""What a container's isolation asks for is checked before anything of it is made."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from agent.engine import isolation
from agent.engine.seccomp import Filters
from agent.engine.spec import Device, Isolation
from agent.errors import InvalidArgument
from tests.unit.agent.engine.test_seccomp import spec

pytestmark = pytest.mark.unit


def check(tmp_path: Path, **fields: object) -> None:
    wanted = Isolation(seccomp="unconfined", **fields)  # type: ignore[arg-type]
    isolation.check(dataclasses.replace(spec(""), isolation=wanted), Filters(tmp_path))


@pytest.mark.parametrize("name", ["pid", "ipc", "uts", "user"])
def test_a_namespace_is_its_own_or_the_host_s(tmp_path: Path, name: str) -> None:
    """Anything else, such as another container's, is refused."""
    check(tmp_path, **{name: ""})
    check(tmp_path, **{name: "host"})
    with pytest.raises(InvalidArgument, match="namespace"):
        check(tmp_path, **{name: "container:web1"})


@pytest.mark.parametrize(
    ("source", "target", "permissions", "words"),
    [
        ("/dev/no-such-device", "/dev/x", "rwm", "error gathering device information"),
        ("/etc/hostname", "/dev/x", "rwm", "is not a device node"),
        ("/dev/null", "/dev/x", "rx", "invalid mode"),
        ("/dev/null", "/dev/x", "", "invalid mode"),
        ("dev/null", "/dev/x", "rwm", "absolute path"),
        ("/dev/null", "/dev/../etc", "rwm", "absolute path"),
    ],
)
def test_a_device_is_one(tmp_path: Path, source: str, target: str, permissions: str, words: str) -> None:
    """What is none, or cannot be where it is wanted, is refused; this host is asked, and after a move the target."""
    with pytest.raises(InvalidArgument, match=words):
        check(tmp_path, devices=(Device(source=source, target=target, permissions=permissions),))
