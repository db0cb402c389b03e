"""Where the fleets of the tests of moves come from: each is a copy of one database."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from migrate.coordinator import allocate
from migrate.coordinator.store import Host, Store
from tests.fakes import agent as fakes


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    """Has template.db: two hosts, a container of the first. Memory, where there is some: thousands of databases, each with its fsyncs."""
    shm = Path("/dev/shm")
    path = Path(tempfile.mkdtemp(prefix="hsaga-", dir=shm if shm.is_dir() else None))
    store = Store(path / "template.db")
    for name in ("host1", "host2"):
        store.put_host(Host(name=name, address=fakes.address(name)))
    allocate.create(store, owner="host1", name="web1", make_spec=lambda _allocation: "{}")
    store.database.close()
    yield path
    shutil.rmtree(path)
