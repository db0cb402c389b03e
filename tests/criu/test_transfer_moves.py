"""How a move travels: packed, no faster than allowed, and what its record says of it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from migrate.lab.demo_run import Outside
from migrate.records import Migration, Run
from tests.criu.moving_lab import MovingLab, wait_for

pytestmark = pytest.mark.criu

REDIS = ("redis-server", "--bind", "0.0.0.0", "--protected-mode", "no", "--save", "", "--dir", "/tmp")
SIZE_MB = 60  # of values that shrink by a third or so


class Store:
    """A Redis that was filled, and can tell whether it still has all of it."""

    def __init__(self, fleet: MovingLab, name: str) -> None:
        self.fleet, self.name = fleet, name
        container = fleet.client.run(Run(image="redis", name=name, argv=REDIS, host="host1"))
        self._outside = Outside(fleet.lab, container.address.partition("/")[0], 6379)
        self._outside.wait_for_server()
        self._keys = self._outside.data("fill", SIZE_MB, name)["keys"]

    def move(self, *options: str) -> Migration:
        """To the other host; all values are there afterwards."""
        to = "host2" if self.fleet.client.inspect(self.name).host == "host1" else "host1"
        done = self.fleet.cli("move", self.name, "--to", to, *options)
        assert done.returncode == 0, done.stderr
        found = self._outside.data("verify", SIZE_MB, self.name)
        assert (found["missing"], found["wrong"], found["keys"]) == (0, 0, self._keys)
        return self.fleet.client.migration(self.fleet.client.migrations(container=self.name, limit=1)[0].id)


@pytest.fixture
def store(fleet: MovingLab, request: pytest.FixtureRequest) -> Iterator[Store]:
    name = request.node.name.partition("[")[0].replace("_", "-")
    try:
        yield Store(fleet, name)
    finally:
        fleet.client.remove(name, force=True)


def test_packed(store: Store) -> None:
    """By each codec; the record has bytes before and after, and of each codec, and they add up."""
    plain = store.move("--compress", "none")
    assert plain.travelled.codec_bytes.keys() == {"none"}
    assert plain.travelled.skipped_bytes["zero"] > 0
    for codec in ("zstd", "lz4"):
        record = store.move("--compress", codec)
        travelled, wire = record.travelled, sum(record.sent_bytes.values())
        assert record.compress == codec
        assert travelled.codec_bytes[codec] > 10 * travelled.codec_bytes.get("none", 0)
        assert sum(travelled.codec_bytes.values()) == wire
        assert travelled.raw_bytes.keys() == record.sent_bytes.keys()
        assert wire < 0.9 * sum(travelled.raw_bytes.values())


def test_a_limit_that_is_lifted(fleet: MovingLab, store: Store) -> None:
    """A move of minutes at its limit ends within seconds once that is lifted; before, it sent no more than it might."""
    command = fleet.command("move", store.name, "--to", "host2", "--bandwidth", "512k", "--compress", "none")
    with subprocess.Popen(command, env=fleet.environment, stdout=subprocess.PIPE, text=True) as moving:
        running = wait_for(lambda: fleet.client.migrations(container=store.name, active=True))[0]
        shown = wait_for(lambda: _precopying(fleet, running.id))
        assert shown.bandwidth == 512 << 10
        slower = fleet.cli("migrations", "set", running.id[:8], "--bandwidth", "100k")
        assert slower.returncode != 0
        assert "cancel it" in slower.stderr
        with pytest.raises(subprocess.TimeoutExpired):
            moving.wait(5)  # the whole takes two minutes
        done = fleet.cli("migrations", "set", running.id[:8], "--bandwidth", "unlimited")
        assert done.returncode == 0, done.stderr
        assert "as much as there is" in done.stdout
        assert moving.wait(60) == 0
    late = fleet.cli("migrations", "set", running.id, "--bandwidth", "1M")
    assert late.returncode != 0
    assert "sends nothing any more" in late.stderr
    record = fleet.client.migration(running.id)
    assert record.bandwidth == 0
    page = fleet.cli("migrations", "show", running.id).stdout
    assert "what travelled:" in page
    assert store.move().state == "succeeded"


def _precopying(fleet: MovingLab, migration_id: str) -> Migration | None:
    record = fleet.client.migration(migration_id)
    return record if any((row.step, row.event) == ("precopy", "started") for row in record.journal) else None


@pytest.mark.parametrize(
    ("options", "what"),
    [(("--bandwidth", "1k"), "too little"), (("--bandwidth", "fast"), "not a rate"), (("--compress", "gzip"), "gzip")],
)
def test_refused(store: Store, fleet: MovingLab, options: tuple[str, ...], what: str) -> None:
    """Before anything is touched, with what it takes instead."""
    done = fleet.cli("move", store.name, "--to", "host2", *options)
    assert done.returncode != 0
    assert what in done.stderr
    assert fleet.client.inspect(store.name).host == "host1"
