"""The client library without a coordinator: where it looks for one, and its records on the wire."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest

from migrate import client, wire
from migrate.errors import Cancelled, NeedsAttention, PrecheckError, StepError, Unreachable
from migrate.records import Run
from protos import coordinator_pb2, types_pb2

pytestmark = pytest.mark.unit


def test_the_socket_is_found_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment, the system's, the lab's; the system's where there is none, so that the error names it."""
    system, lab = tmp_path / "system.sock", tmp_path / "lab.sock"
    monkeypatch.setattr(client, "SYSTEM_SOCKET", system)
    monkeypatch.setattr(client, "LAB_SOCKET", lab)
    monkeypatch.delenv("MIGRATE_COORDINATOR", raising=False)
    assert client.find_socket() == system
    lab.touch()
    assert client.find_socket() == lab
    system.touch()
    assert client.find_socket() == system
    monkeypatch.setenv("MIGRATE_COORDINATOR", "unix:/elsewhere.sock")
    assert client.find_socket() == Path("/elsewhere.sock")


def test_a_socket_that_nobody_listens_at_is_told_from_one_that_is_not_there(tmp_path: Path) -> None:
    """A coordinator that was killed leaves its socket: the hint is to start it again."""
    path = tmp_path / "dead.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
    with client.Client(path) as dead, pytest.raises(Unreachable, match="nobody listens at") as caught:
        dead.version()
    assert "migrate-coordinator --config" in caught.value.hint


def test_the_entrypoint_on_the_wire_tells_keep_from_clear() -> None:
    """None keeps the image's, () clears it."""
    requests = [wire.run_request(Run(image="i", entrypoint=e), create_only=True) for e in (None, (), ("sh",))]
    assert [list(request.entrypoint) for request in requests] == [[], [""], ["sh"]]


def test_a_container_survives_the_wire_and_json() -> None:
    """An exit code of 0 is not the same as none; an unspecified state is unknown."""
    status = types_pb2.ContainerStatus(
        spec=types_pb2.ContainerSpec(id="a" * 32, name="web1", labels={"x": "y"}, argv=["sh"]),
        state=types_pb2.CONTAINER_STATE_EXITED,
        exit_code=0,
    )
    shown = json.loads(json.dumps(wire.container(status).to_dict()))
    assert (shown["state"], shown["exit_code"], shown["labels"], shown["argv"]) == ("exited", 0, {"x": "y"}, ["sh"])
    assert wire.container(types_pb2.ContainerStatus()).exit_code is None
    assert wire.container(types_pb2.ContainerStatus()).state == "unknown"


@pytest.mark.parametrize(
    ("state", "code", "touched", "kind", "status"),
    [
        ("failed", "criu", "undone", StepError, 6),
        ("failed", "migration.precheck", "nothing", PrecheckError, 5),
        ("cancelled", "cancelled", "undone", Cancelled, 130),
        ("needs-attention", "unreachable", "something", NeedsAttention, 7),
    ],
)
def test_how_a_move_ended_decides_the_errors_class(
    state: str, code: str, touched: str, kind: type[Exception], status: int
) -> None:
    """And the code stays what went wrong."""
    error = types_pb2.ErrorDetail(code=code, message="m", touched=touched)
    found = wire.failure(coordinator_pb2.MigrationRecord(state=state, error=error))
    assert type(found) is kind
    assert found is not None
    assert (found.code, found.touched, found.exit_status) == (code, touched, status)


def test_a_move_without_trouble_raises_nothing() -> None:
    """Also one that goes on, and a dry run."""
    for state in ("succeeded", "running", "checked"):
        assert wire.failure(coordinator_pb2.MigrationRecord(state=state)) is None
