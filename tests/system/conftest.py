"""What several files of the system tier use: a host with an engine, in a network of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from agent.engine.container import Engine
from agent.engine.state import State
from tests.system.engine_host import EngineHost, engine_host


@pytest.fixture(scope="module")
def host() -> Iterator[EngineHost]:
    with engine_host() as made:
        yield made


@pytest.fixture
def engine(host: EngineHost) -> Iterator[Engine]:
    engine = host.engine()
    yield engine
    for status in engine.list():
        engine.roles.end(status.spec.id, status.migration_id, status.epoch)
        engine.cgroup(status.spec.id).freeze(False) if status.state == State.FROZEN else None
        engine.remove(status.spec.id, force=True)
    engine.close()
