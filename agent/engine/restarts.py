"""Containers that have ended and come back: restart policies, and `restart`.

    exit ─► ended(): does the policy want it back? ─► after the back-off: start ─► exit ─► ...

The back-off begins at 0.1 s, doubles up to a minute, and begins anew when the container has run for 10 s, as Docker's. It is
forgotten when the agent ends; whom the policy wants back is decided again at the agent's start (boot).

Never two copies. Ownership leaves a host in one way only: a move in which this host is the source. roles.begin() writes that
move into state.json, durably, before the coordinator gets its answer, so long before the pivot, and only the last word on the
move takes it out again: Finish(undo), which the coordinator says only of a move that never passed its pivot, or Finish(commit),
with which the container itself goes. So what this host needs to know is on its disk: with a migration_id in its record a
container is never started here, however long the host was off or alone; without one it is this host's, and nobody else may
run it. The target is the same: its record has the migration_id until Finish(commit) made the new epoch durable.
"""

from __future__ import annotations

import dataclasses
import heapq
import logging
import threading
import time
from typing import TYPE_CHECKING

from agent.engine.spec import ContainerSpec, RestartPolicy
from agent.engine.state import ContainerStatus, State
from agent.errors import AgentError, InvalidArgument, NotFound, WrongState

if TYPE_CHECKING:
    from agent.engine.container import Engine

FIRST_DELAY_S = 0.1
MAX_DELAY_S = 60.0
LONG_ENOUGH_S = 10.0
FAILED_EXIT_CODE = 125  # of a start that came to nothing
POLICIES = ("", "no", "on-failure", "always", "unless-stopped")

log = logging.getLogger(__name__)


def check(spec: ContainerSpec) -> None:
    """Raises InvalidArgument for a policy that cannot be."""
    policy = spec.restart
    if policy.name not in POLICIES:
        raise InvalidArgument(
            f"{policy.name!r} is no restart policy", hint=f"policies are {', '.join(filter(None, POLICIES))}"
        )
    if policy.max_retries and policy.name != "on-failure":
        raise InvalidArgument(f"a number of retries goes with on-failure, not with {policy.name or 'no'}")
    if spec.remove_on_exit and policy.acts:
        raise InvalidArgument(
            f"container {spec.name} cannot be removed at its exit and restarted", hint="leave out --rm or --restart"
        )


def wants(policy: RestartPolicy, status: ContainerStatus, *, stopped: bool, restarts: int, boot: bool = False) -> bool:
    """Whether the policy starts the container again that ended as `status` says. `stopped`: somebody said so; `boot`: the
    agent has just started, and `always` does not mind then.
    """
    if policy.name == "always":
        return boot or not stopped
    if stopped:
        return False
    if policy.name == "unless-stopped":
        return True
    if policy.name != "on-failure" or (policy.max_retries and restarts >= policy.max_retries):
        return False
    if boot and status.error:
        return False  # its host or its monitor ended first: it has not failed
    return bool(status.exit_code)


class Restarts:
    """`engine.restarts`. Callers of ended() and cancel() hold the container's lock; one thread for all back-offs."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._changed = threading.Condition()
        self._due: list[tuple[float, str]] = []  # a heap; what is not in _pending with that instant is void
        self._pending: dict[str, float] = {}
        self._delays: dict[str, float] = {}
        self._held: set[str] = set()
        self._open = False

    def boot(self) -> None:
        """After the agent's start, when the host is in order: from now on policies act, and on what has ended before."""
        with self._changed:
            self._open = True
        threading.Thread(target=self._run, name="restarts", daemon=True).start()
        for status in self._engine.list():
            try:
                with self._engine.store.lock(status.spec.id):
                    now = self._engine.inspect(status.spec.id)
                    # Created, though it has run: the last agent ended in the middle of a start.
                    if now.state in (State.EXITED, State.CREATED) and not now.migration_id:
                        self.ended(now, boot=True)
            except NotFound:
                continue  # removed meanwhile

    def close(self) -> None:
        with self._changed:
            self._open = False
            self._pending.clear()
            self._changed.notify_all()

    def pending(self, container_id: str) -> bool:
        with self._changed:
            return container_id in self._pending

    def ended(self, status: ContainerStatus, *, boot: bool = False) -> bool:
        """It has exited and takes part in no move: whether it comes back, by its policy or because `restart` holds it."""
        container_id = status.spec.id
        if container_id in self._held:
            return True
        record = self._engine.store.record(container_id)
        if not record.started_unix_ns or not self._open:
            return False
        if not wants(status.spec.restart, status, stopped=record.stopped, restarts=record.restarts, boot=boot):
            self._delays.pop(container_id, None)
            return False
        ran_s = (status.finished_unix_ns - record.started_unix_ns) / 1e9
        before_s = 0.0 if ran_s >= LONG_ENOUGH_S else self._delays.get(container_id, 0.0)
        delay_s = min(before_s * 2, MAX_DELAY_S) or FIRST_DELAY_S
        self._delays[container_id] = delay_s
        with self._changed:
            due = time.monotonic() + delay_s
            self._pending[container_id] = due
            heapq.heappush(self._due, (due, container_id))
            self._changed.notify_all()
        return True

    def cancel(self, container_id: str) -> None:
        """It will not come back by itself."""
        with self._changed:
            self._pending.pop(container_id, None)
        self._delays.pop(container_id, None)

    def restart(self, container_id: str, timeout_s: float | None = None, signal: str = "") -> ContainerStatus:
        """Stop it as Engine.stop does, where it runs, and start it. One that was to be removed at its exit stays. Raises as both."""
        engine = self._engine
        with engine.store.lock(container_id):
            if engine.inspect(container_id).migration_id:
                engine.refuse_start(container_id)
            if container_id in self._held:
                raise WrongState(f"container {container_id} is being restarted already")
            self._held.add(container_id)
        try:
            engine.stop(container_id, timeout_s, signal, for_good=False)
            with engine.store.lock(container_id):
                engine.start(container_id)
                engine.note("restart", engine.store.spec(container_id))
                self._held.discard(container_id)
        except BaseException:
            with engine.store.lock(container_id):
                self._held.discard(container_id)
                engine.after_end(container_id)  # what was kept from it meanwhile
            raise
        return engine.inspect(container_id)

    def set_policy(self, container_id: str, policy: RestartPolicy) -> ContainerStatus:
        """For the next exit; one that waits for its restart is asked anew. Raises InvalidArgument, WrongState in a move."""
        engine = self._engine
        with engine.store.lock(container_id):
            status = engine.inspect(container_id)
            if status.migration_id:
                engine.refuse_start(container_id)
            changed = dataclasses.replace(status.spec, restart=policy)
            check(changed)
            engine.store.write_spec(changed)
            if status.state == State.RESTARTING:
                self.cancel(container_id)
                engine.after_end(container_id)
            engine.note("update", changed)
            return engine.inspect(container_id)

    # ------------------------------------------------------------ the thread

    def _run(self) -> None:
        while True:
            with self._changed:
                while self._open and not (self._due and self._due[0][0] <= time.monotonic()):
                    self._changed.wait(self._due[0][0] - time.monotonic() if self._due else None)
                if not self._open:
                    return
                due, container_id = heapq.heappop(self._due)
                if self._pending.get(container_id) != due:
                    continue
            # In a thread of its own: a start takes a while, and the others must not wait for it.
            threading.Thread(target=self._start, args=(container_id, due), name="restart", daemon=True).start()

    def _start(self, container_id: str, due: float) -> None:
        engine = self._engine
        try:
            with engine.store.lock(container_id):
                with self._changed:
                    if self._pending.get(container_id) != due or not self._open:
                        return
                try:
                    if not engine.inspect(container_id).migration_id:  # else whoever ends the move asks again
                        self._again(container_id)
                except (AgentError, OSError) as exc:
                    log.warning("container %s: its restart failed: %s", container_id, exc)
                    status = engine.inspect(container_id)
                    self.ended(dataclasses.replace(status, exit_code=status.exit_code or FAILED_EXIT_CODE))
                finally:
                    with self._changed:
                        if self._pending.get(container_id) == due:
                            del self._pending[container_id]
        except NotFound:
            return  # removed meanwhile

    def _again(self, container_id: str) -> None:
        """Start it, counted, also where that fails. Under its lock."""
        engine, store = self._engine, self._engine.store
        engine.refuse_start(container_id)
        before = store.record(container_id)
        # Without the pid of its last life nobody takes what is being made for that.
        store.write_record(container_id, dataclasses.replace(before, pid=0, start_ticks=0))
        try:
            engine.begin_life(store.spec(container_id), restarts=before.restarts + 1)
        except (AgentError, OSError):
            now = store.record(container_id)
            store.write_record(container_id, dataclasses.replace(now, restarts=before.restarts + 1))
            raise
