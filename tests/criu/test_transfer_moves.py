"""How a move travels: packed, no faster than allowed, and what its record says of it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from bench.fault_scene import Scene, Victim, children
from migrate.lab import processes
from migrate.lab.demo_run import Outside
from migrate.records import Migration, Run
from tests.criu.moving_lab import MovingLab, program, wait_for

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


@pytest.mark.parametrize("codec", ["none", "zstd", "lz4"])
def test_packed(store: Store, codec: str) -> None:
    """By each codec; the record has bytes before and after, and of each codec, and they add up."""
    record = store.move("--compress", codec)
    travelled, wire = record.travelled, sum(record.sent_bytes.values())
    assert record.compress == codec
    assert sum(travelled.codec_bytes.values()) == wire
    assert travelled.raw_bytes.keys() == record.sent_bytes.keys()
    assert travelled.skipped_bytes["zero"] > 0
    if codec == "none":
        assert travelled.codec_bytes.keys() == {"none"}
        return
    assert travelled.codec_bytes[codec] > 10 * travelled.codec_bytes.get("none", 0)
    assert wire < 0.9 * sum(travelled.raw_bytes.values())


def test_over_several_connections(fleet: MovingLab, store: Store) -> None:
    """Each carries its share; all that was sent is there; and back over one."""
    record = store.move("--connections", "3", "--compress", "none")
    assert (record.state, record.connections) == ("succeeded", 3)
    assert ", 3 connections" in fleet.cli("migrations", "show", record.id).stdout
    assert store.move().connections == 1
    refused = fleet.cli("move", store.name, "--to", "host2", "--connections", "9")
    assert refused.returncode == 2
    assert "'9' is not a number from 1 to 8" in refused.stderr


def test_connections_fall_together(fleet: MovingLab, store: Store) -> None:
    """One of two is killed while the container still runs: the move fails at once, says which, and nothing has happened."""
    scene = Scene(fleet.lab, fleet.client.inspect(store.name).id, "host1", "host2")
    command = fleet.command("move", store.name, "--to", "host2", "--bandwidth", "2M", "--connections", "2")
    with subprocess.Popen(command, env=fleet.environment, stderr=subprocess.PIPE, text=True) as moving:
        running = wait_for(lambda: fleet.client.migrations(container=store.name, active=True))[0]
        wait_for(lambda: _precopying(fleet, running.id))
        sender = scene.find(Victim.SENDER)
        assert sender is not None
        both = [found for pid in children(sender.pid) if (found := processes.read(pid)) and "ssh " in found.command]
        assert len(both) == 2
        assert processes.send(both[1], 9)
        _, said = moving.communicate(timeout=60)
    assert moving.returncode != 0
    assert "connection" in said
    assert fleet.client.inspect(store.name).host == "host1"
    assert store.move("--connections", "2").state == "succeeded"


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


def test_the_way_back_is_short(fleet: MovingLab, store: Store) -> None:
    """What the first host has kept does not travel again, there and back twice; what of it is damaged does, and nobody notices."""
    first = store.move("--compress", "none")
    kept = fleet.lab.node_dir("host1") / "var/kept" / first.container_id
    assert (kept / "pages").stat().st_size > 0.8 * (SIZE_MB << 20)
    assert (kept.stat().st_mode & 0o777, (kept / "pages").stat().st_mode & 0o777) == (0o700, 0o600)
    sent = [sum(store.move("--compress", "none").sent_bytes.values()) for _ in range(3)]
    memory = first.sent_bytes["precopy"] + first.sent_bytes["memory"]
    assert all(each < 0.2 * memory for each in sent), (memory, sent)
    assert not kept.parent.joinpath(f"{first.container_id}.new").exists()
    assert fleet.client.inspect(store.name).host == "host1"
    with (fleet.lab.node_dir("host2") / "var/kept" / first.container_id / "pages").open("r+b") as file:
        for at in range(0, 40 << 20, 4 << 20):
            file.seek(at)
            file.write(b"rotten")
    again = store.move("--compress", "none")  # looks at every value
    assert again.sent_bytes["precopy"] > 5 << 20


def test_what_changes_a_little_travels_as_that(fleet: MovingLab) -> None:
    """A program that writes a few bytes into random pages: pages that come again go as differences, and it misses nothing."""
    argv = program("dirty_memory", "24", "20")
    container = fleet.client.run(Run(image="work", name="writer", argv=argv, host="host1"))
    try:
        wait_for((fleet.upper(container) / "srv/dirty_memory.json").exists)
        for to in ("host2", "host1"):
            wait_for(lambda: fleet.later("writer", "dirty_memory")["checked"])
            done = fleet.cli("move", "writer", "--to", to, "--max-downtime", "1")
            assert done.returncode == 0, done.stderr
            found = fleet.client.migrations(container="writer", limit=1)[0]
            assert sum(size for name, size in found.travelled.codec_bytes.items() if name.startswith("delta")) > 0
        wait_for(lambda: fleet.later("writer", "dirty_memory")["checked"])
        assert fleet.status("writer", "dirty_memory")["problems"] == []
    finally:
        fleet.client.remove("writer", force=True)


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
