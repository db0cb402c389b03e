"""What several files of the system tier use: a host with an engine, in a network of its own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from agent.engine.container import Engine
from tests.system.engine_host import EngineHost, engine_host


@pytest.fixture(scope="module")
def host() -> Iterator[EngineHost]:
    with engine_host() as made:
        yield made


@pytest.fixture
def engine(host: EngineHost) -> Iterator[Engine]:
    yield host.engine()
    host.empty()
