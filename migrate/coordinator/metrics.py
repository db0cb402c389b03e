"""`/metrics` for Prometheus, on loopback: what moves cost, what failed and why, what goes on, and how the hosts are.

Everything is read from the store when it is asked for, so counters go on through restarts; moves that have ended are taken in once.
"""

from __future__ import annotations

import ipaddress
import threading
from collections import Counter
from collections.abc import Iterator

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

from migrate.coordinator import events
from migrate.coordinator.evacuation.records import Evacuations
from migrate.coordinator.events import MigrationRecord
from migrate.coordinator.schedules.records import Schedules
from migrate.coordinator.store import ACTIVE, MoveState, Store
from migrate.errors import InvalidArgument, MigrateError
from migrate.saga.journal import Journal

SECONDS = (0.1, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0)


class Histogram:
    """Cumulative buckets, as Prometheus wants them."""

    def __init__(self) -> None:
        self.counts = [0] * (len(SECONDS) + 1)
        self.sum = 0.0

    def add(self, value: float) -> None:
        self.sum += value
        for n, bound in enumerate((*SECONDS, float("inf"))):
            self.counts[n] += value <= bound

    def buckets(self) -> list[tuple[str, float]]:
        return [
            *((str(bound), float(self.counts[n])) for n, bound in enumerate(SECONDS)),
            ("+Inf", float(self.counts[-1])),
        ]


class FleetCollector(Collector):
    """Thread-safe. One a registry."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._seen: set[str] = set()
        self._ended: Counter[str] = Counter()
        self._failures: Counter[str] = Counter()
        self._bytes: Counter[str] = Counter()
        self._rounds = 0
        self._downtime, self._total = Histogram(), Histogram()

    def describe(self) -> list[Metric]:
        """Nothing is asked of the store when it is registered."""
        return []

    def collect(self) -> Iterator[Metric]:
        with self._lock:
            try:
                yield from self._collected()
            finally:
                self._store.database.close()  # of this scrape's thread

    def _collected(self) -> Iterator[Metric]:
        active: Counter[str] = Counter()
        for move in self._store.migrations():
            if move.rehearsal:
                continue
            if move.state in ACTIVE:
                active[move.state] += 1
            elif move.id not in self._seen:
                self._seen.add(move.id)
                self._take_in(events.record(move, Journal(self._store.database, move.id).entries()))
        yield _counter("migrate_moves", "Moves that have ended, by state.", "state", self._ended)
        yield _counter(
            "migrate_move_failures", "Moves that have failed, by the code of the error.", "code", self._failures
        )
        yield _counter("migrate_move_bytes", "Sent by moves that succeeded, on the wire, by kind.", "kind", self._bytes)
        yield CounterMetricFamily("migrate_move_rounds", "Rounds of memory sent ahead.", value=self._rounds)
        for name, text, found in (
            ("migrate_move_downtime_seconds", "How long containers stood still.", self._downtime),
            ("migrate_move_duration_seconds", "How long moves took.", self._total),
        ):
            family = HistogramMetricFamily(name, text)
            family.add_metric([], found.buckets(), found.sum)
            yield family
        going = GaugeMetricFamily("migrate_moves_active", "Moves that have not ended, by state.", labels=["state"])
        for state in ACTIVE:
            going.add_metric([str(state)], active[state])
        yield going
        evacuations = Evacuations(self._store)
        waiting = 0
        running = evacuations.newest(active=True)
        for one in running:
            waiting += sum(item.state == "planned" for item in evacuations.items(one.id))
        yield GaugeMetricFamily(
            "migrate_evacuations_active", "Evacuations and restores that go on.", value=len(running)
        )
        yield GaugeMetricFamily(
            "migrate_evacuation_queue", "Containers that wait for their turn in them.", value=waiting
        )
        runs = len(Schedules(self._store).runs(active=True))
        yield GaugeMetricFamily("migrate_schedule_runs_active", "Runs of schedules that go on.", value=runs)
        yield from self._hosts()

    def _hosts(self) -> Iterator[Metric]:
        health = GaugeMetricFamily(
            "migrate_host_health", "1 for the state that a host is in.", labels=["host", "state"]
        )
        cordoned = GaugeMetricFamily("migrate_host_cordoned", "Whether it takes nothing new.", labels=["host"])
        containers = GaugeMetricFamily("migrate_host_containers", "That it owns.", labels=["host"])
        for host in self._store.hosts():
            health.add_metric([host.name, str(host.pulse.health)], 1)
            cordoned.add_metric([host.name], host.cordon is not None)
            containers.add_metric([host.name], len(self._store.containers(host.name)))
        yield from (health, cordoned, containers)

    def _take_in(self, record: MigrationRecord) -> None:
        self._ended[record.state] += 1
        if record.state is MoveState.FAILED:
            self._failures[record.error.code if record.error else "unknown"] += 1
        if record.state is not MoveState.SUCCEEDED:
            return
        for kind, sent in record.sent_bytes.items():
            self._bytes[kind] += sent
        for row in record.journal:
            if row.step == "precopy" and row.event == "done":
                self._rounds += len(row.facts.get("each_round", ()))
        if "downtime_s" in record.facts:
            self._downtime.add(record.facts["downtime_s"])
        if "total_s" in record.facts:
            self._total.add(record.facts["total_s"])


class MetricsServer:
    """On `address`, such as "127.0.0.1:9464", until `stop`. Raises MigrateError where it cannot listen."""

    def __init__(self, store: Store, address: str) -> None:
        host, port = loopback(address)
        registry = CollectorRegistry()
        registry.register(FleetCollector(store))
        try:
            self._server, self._thread = start_http_server(port, host, registry)
        except OSError as exc:
            raise MigrateError(f"metrics: cannot listen on {address}: {exc}", code="unreachable") from exc
        self.port = int(self._server.server_address[1])

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def loopback(address: str) -> tuple[str, int]:
    """("127.0.0.1", 9464) of "127.0.0.1:9464". Raises InvalidArgument for what others could reach: it asks nobody who they are."""
    host, _, port = address.rpartition(":")
    try:
        found = ipaddress.ip_address(host.strip("[]"))
        if not found.is_loopback or not 0 <= int(port) < 65536:
            raise ValueError
    except ValueError:
        raise InvalidArgument(
            f"metrics takes an address of loopback with a port, not {address!r}", hint="such as 127.0.0.1:9464"
        ) from None
    return str(found), int(port)


def _counter(name: str, text: str, label: str, counts: Counter[str]) -> Metric:
    family = CounterMetricFamily(name, text, labels=[label])
    for key, count in sorted(counts.items()):
        family.add_metric([str(key)], count)
    return family
