"""Heartbeats: each agent is asked every other second, through its control tunnel, whether it is there.

    unknown ──► up ──6 s without an answer──► suspect ──30 s──► down          any answer ──► up

`down` says that this coordinator hears nothing, and no more: the machine may run behind a cut cable, with its containers. So nothing
follows from it: what is on a host that is down stays there until it answers. Changes are in the store, with times, and are events;
a coordinator that starts goes on with what the last one knew, and counts a host's silence from its own start.
"""

from __future__ import annotations

import dataclasses
import logging
import queue
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from migrate.coordinator import host_records
from migrate.coordinator.agents import AgentPool, Pending
from migrate.coordinator.host_records import Health, Pulse
from migrate.coordinator.store import Store
from migrate.errors import MigrateError, Unreachable
from protos import agent_pb2

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Seconds. `suspect_s`, `down_s`: of silence."""

    interval_s: float = 2.0
    suspect_s: float = 6.0
    down_s: float = 30.0

    def times(self, patience: float) -> Limits:
        """For hosts that are slow for good."""
        return Limits(interval_s=self.interval_s, suspect_s=self.suspect_s * patience, down_s=self.down_s * patience)


def judge(before: Health, silent_s: float, limits: Limits) -> Health:
    """What a host is after `silent_s` without an answer. Silence never makes it better."""
    if before is Health.DOWN or silent_s >= limits.down_s:
        return Health.DOWN
    return Health.SUSPECT if silent_s >= limits.suspect_s else before


@dataclass
class _Watched:
    pulse: Pulse
    heard: float  # monotonic: its last answer, or since when it is listened to
    asked: Pending | None = None
    seen_unix_ns: int = 0


class Heartbeats:
    """`start`, `stop`. Its own thread asks and judges; answers come in threads of gRPC's, which only wake it."""

    def __init__(
        self, store: Store, pool: AgentPool, limits: Limits, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._store, self._pool, self._limits, self._clock = store, pool, limits, clock
        self._watched: dict[str, _Watched] = {}
        self._answers: queue.SimpleQueue[str] = queue.SimpleQueue()  # of these hosts; "": stop
        self._over = False
        self._thread = threading.Thread(target=self._run, name="heartbeats", daemon=True)
        self._last_look = clock()

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """No further beats. Before the pool and the store are closed."""
        self._over = True
        self._answers.put("")
        self._thread.join()

    def _run(self) -> None:
        next_look = self._clock()
        while not self._over:
            try:
                if self._clock() >= next_look:
                    next_look = self._clock() + self._limits.interval_s
                    self.look()
                self.hear(max(0.0, next_look - self._clock()))
            except Exception:  # the watch must go on; what is wrong is in the log
                log.exception("heartbeats")
                time.sleep(0.1)
        for one in self._watched.values():
            if one.asked is not None:
                one.asked.cancel()
        self._store.database.close()

    def look(self) -> None:
        """Judge everybody's silence, and ask those that have answered the last question."""
        now = self._clock()
        away_s = now - self._last_look - 2 * self._limits.interval_s
        self._last_look = now
        hosts = self._store.hosts()
        for gone in self._watched.keys() - {host.name for host in hosts}:
            del self._watched[gone]
        for host in hosts:
            one = self._watched.setdefault(host.name, _Watched(pulse=host.pulse, heard=now))
            if away_s > 0:  # this process was stopped, or starved: that is not the hosts' silence
                one.heard += away_s
            health = judge(one.pulse.health, now - one.heard, self._limits)
            if health is not one.pulse.health:
                error = one.pulse.error or "it does not answer"
                self._change(host.name, one, health, error=error, boot_id=one.pulse.boot_id)
            if one.asked is None:
                self._ask(host.name, one)

    def hear(self, timeout_s: float) -> None:
        """Take in one answer; returns after `timeout_s` without any."""
        try:
            name = self._answers.get(timeout=timeout_s)
        except queue.Empty:
            return
        one = self._watched.get(name)
        if one is None or one.asked is None:
            return
        boot_id = ""
        try:
            boot_id = one.asked.result().boot_id
        except Unreachable as exc:
            one.pulse = dataclasses.replace(one.pulse, error=exc.message)
            return
        except MigrateError as exc:
            log.debug("%s does not know heartbeats, and so has answered: %s", name, exc.message)
        finally:
            one.asked = None
        one.heard = self._clock()
        rebooted = bool(boot_id and one.pulse.boot_id and boot_id != one.pulse.boot_id)
        if one.pulse.health is not Health.UP or rebooted:
            self._change(name, one, Health.UP, error="", boot_id=boot_id, action="rebooted" if rebooted else "up")
        one.pulse = dataclasses.replace(one.pulse, error="")
        one.seen_unix_ns = time.time_ns()

    def _ask(self, name: str, one: _Watched) -> None:
        try:
            one.asked = self._pool.agent(name).begin("Host", "Beat", agent_pb2.BeatRequest())
        except MigrateError as exc:  # it has just gone, or the pool is closed
            one.pulse = dataclasses.replace(one.pulse, error=exc.message)
            return
        one.asked.when_done(lambda: self._answers.put(name))

    def _change(self, name: str, one: _Watched, health: Health, *, error: str, boot_id: str, action: str = "") -> None:
        one.pulse = Pulse(
            health=health,
            since_unix_ns=time.time_ns(),
            seen_unix_ns=0 if health is Health.UP else one.seen_unix_ns or one.pulse.seen_unix_ns,
            error=error,
            boot_id=boot_id,
        )
        host_records.set_pulse(self._store.database, name, one.pulse, action or str(health))
        (log.info if health is Health.UP else log.warning)("%s is %s%s", name, health, f": {error}" if error else "")
