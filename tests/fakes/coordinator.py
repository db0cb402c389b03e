"""What tests of the coordinator begin with: a move's row, and a fleet of two hosts with one container, in memory."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from migrate.coordinator import allocate
from migrate.coordinator.store import Container, ContainerId, Host, Migration, MigrationId, MoveState, Store
from tests.fakes import agent as fakes
from tests.fakes.agent import World
from tests.fakes.wire import Wire

_MOVE = Migration(
    id=MigrationId("m1"),
    container_id=ContainerId("c1"),
    container="web1",
    source="host1",
    target="host2",
    epoch=1,
    state=MoveState.RUNNING,
    reason="",
    mode="auto",
    max_downtime_s=0.3,
    request_id="",
    started_unix_ns=1,
    finished_unix_ns=0,
    error=None,
)


def a_move(container: Container | None = None, **changes: object) -> Migration:
    """Of `container` from its owner to host2, or of a web1 that nobody has; under way unless `changes` say otherwise."""
    move = _MOVE
    if container is not None:
        move = dataclasses.replace(
            move,
            container_id=container.id,
            container=container.name,
            source=container.owner,
            epoch=container.epoch,
        )
    return dataclasses.replace(move, **changes)  # type: ignore[arg-type]  # names are checked by replace


class TwoHosts:
    """web1 runs on host1, host2 agrees to everything; calls go over `wire`."""

    def __init__(self, directory: Path) -> None:
        self.store = Store(directory / "db")
        for name in ("host1", "host2"):
            self.store.put_host(Host(name=name, address=fakes.address(name)))
        self.container = allocate.create(self.store, owner="host1", name="web1", make_spec=lambda _a: "{}")
        self.world = World("host1", "host2")
        self.world.run("host1", self.container.id)
        self.wire = Wire(self.world)
