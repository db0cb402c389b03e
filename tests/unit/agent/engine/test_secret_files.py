"""Secrets between the call that brings them and init, and between two hosts."""

from __future__ import annotations

import dataclasses
import stat
from pathlib import Path

import pytest

from agent.engine import secret_files
from agent.engine.spec import Mount, Secret
from agent.errors import InvalidArgument
from tests.unit.agent.engine.test_hostfiles import spec as plain

pytestmark = pytest.mark.unit
SPEC = dataclasses.replace(
    plain(),
    mounts=(Mount(kind="tmpfs", target="/run/secrets/"),),
    secrets=(Secret(name="token", target="/run/secrets/token", uid=5, mode=0o400),),
)


def test_they_are_root_s_alone_and_travel(tmp_path: Path) -> None:
    """Kept 0600 in a directory 0700, also on the next host; init is told where; the spec has none of it."""
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    there.mkdir()
    secret_files.check(SPEC, {"token": b"\x00hush"})
    secret_files.keep(here, SPEC, {"token": b"\x00hush"})
    secret_files.take(there, SPEC, secret_files.export(here, SPEC))
    (planned,) = secret_files.plan(there, SPEC)
    kept = Path(planned["source"])
    assert kept.read_bytes() == b"\x00hush"
    assert (stat.S_IMODE(kept.stat().st_mode), stat.S_IMODE(kept.parent.stat().st_mode)) == (0o600, 0o700)
    assert (planned["target"], planned["uid"], planned["gid"], planned["mode"]) == ("/run/secrets/token", 5, 0, 0o400)
    assert "hush" not in SPEC.to_json()
    secret_files.keep(here, plain(), {})  # nothing of one that has none
    assert secret_files.export(here, plain()) == {}


@pytest.mark.parametrize(
    ("secret", "contents"),
    [
        (Secret(name="../x", target="/run/secrets/x"), {"../x": b""}),
        (Secret(name="x", target="/etc/shadow"), {"x": b""}),
        (Secret(name="x", target="/run/secrets/../shadow"), {"x": b""}),
        (Secret(name="x", target="/run/secrets"), {"x": b""}),
        (Secret(name="x", target="/run/secrets/x", mode=0o4755), {"x": b""}),
        (Secret(name="x", target="/run/secrets/x"), {}),
        (Secret(name="x", target="/run/secrets/x"), {"x": bytes(secret_files.MOST_BYTES + 1)}),
    ],
)
def test_what_cannot_be_is_refused(secret: Secret, contents: dict[str, bytes]) -> None:
    """Names that lead away, places outside, missing or huge contents."""
    with pytest.raises(InvalidArgument):
        secret_files.check(dataclasses.replace(SPEC, secrets=(secret,)), contents)


def test_no_tmpfs_no_secrets() -> None:
    """They would lie in the writable layer, and so in every image that is made of it."""
    with pytest.raises(InvalidArgument, match="tmpfs"):
        secret_files.check(dataclasses.replace(SPEC, mounts=()), {"token": b"x"})
    secret_files.check(SPEC, None)  # one that arrives: they come with it
