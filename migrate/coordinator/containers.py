"""Containers of the fleet: found by name, asked and told on the host that owns them, wherever a move has taken them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any, Protocol

from migrate.coordinator import choose, create
from migrate.coordinator.agents import Agent, AgentPool, Pending, Stream
from migrate.coordinator.hosts import LIST_RETRIES, Answer, ask_all
from migrate.coordinator.store import Container, Desired, Store
from migrate.errors import Cancelled, InvalidArgument, MigrateError, NotFound, Unreachable, WrongState
from protos import agent_pb2, coordinator_pb2, types_pb2

STOPPED = (types_pb2.CONTAINER_STATE_CREATED, types_pb2.CONTAINER_STATE_EXITED)
STOP_MARGIN_S = 60.0  # of a stop's deadline over the container's own timeout
WAIT_PATIENCE_S = 60.0  # how long a host may be away while somebody waits there for a container
OWNER_TRIES = 3  # a container that changes its owner between question and answer, again and again


class Removed(NotFound):
    """It has exited, and went with that."""

    def __init__(self, name: str) -> None:
        super().__init__(f"container {name} has exited and was removed, as run --rm asked")


class Call(Protocol):
    """What is used of grpc.ServicerContext."""

    def is_active(self) -> bool: ...
    def add_callback(self, callback: Callable[[], None]) -> bool: ...


def bind(call: Call, work: Pending | Stream) -> None:
    """Cancel `work` when the caller's call ends, which may be already."""
    if not call.add_callback(work.cancel):
        work.cancel()


class FleetContainers:
    """Names in, the agents' answers out, completed with what only the fleet knows: host, epoch, move. Thread-safe."""

    def __init__(self, store: Store, pool: AgentPool, *, sleep: Callable[[float], None] = time.sleep) -> None:
        self.store = store
        self.pool = pool
        self._sleep = sleep
        self._coming: set[str] = set()  # recorded, but perhaps not on their hosts yet

    # ------------------------------------------------------------ one container

    def run(self, request: coordinator_pb2.RunRequest) -> types_pb2.ContainerStatus:
        if request.name:  # one that is gone gives its name back
            with contextlib.suppress(NotFound, InvalidArgument):  # nobody, or the beginning of several ids
                container = self.store.container(request.name)
                if container.name == request.name and create.spec_of(container).remove_on_exit:
                    self.inspect(container.id)
        mine: list[str] = []

        def announce(container_id: str) -> None:
            mine.append(container_id)
            self._coming.add(container_id)

        if not request.host:
            request.host = choose.for_run(self.store, self.pool, request)
        try:
            status = create.run(self.store, self.pool, request, announce)
        finally:
            self._coming.difference_update(mine)
        try:
            return self._complete(self.store.container(status.spec.id), status)
        except NotFound:  # it has exited, was removed, and somebody has looked
            return status

    def inspect(self, name: str) -> types_pb2.ContainerStatus:
        """From the store alone, in an unspecified state, where the host does not answer."""
        container = self.store.container(name)
        asked = ""

        def look(agent: Agent, container: Container) -> types_pb2.ContainerStatus:
            nonlocal asked
            asked = container.owner
            return _inspect(agent, container)

        try:
            container, status = self.at_owner(container.id, look)
        except Unreachable as exc:
            return self._unknown(self.store.container(container.id), exc)
        except NotFound as exc:
            container = self.store.container(container.id)
            if container.owner == asked and self._forget(container):
                raise Removed(container.name) from exc
            return self._unknown(container, exc)
        return self._complete(container, status)

    def start(self, name: str) -> types_pb2.ContainerStatus:
        container, status = self.at_owner(
            name, lambda agent, c: agent.call("Containers", "Start", agent_pb2.StartRequest(id=c.id))
        )
        self.store.set_desired(container.id, Desired.RUNNING)
        return self._complete(container, status)

    def stop(self, request: coordinator_pb2.StopContainerRequest) -> types_pb2.ContainerStatus:
        def stop(agent: Agent, container: Container) -> types_pb2.ContainerStatus:
            own_s = create.spec_of(container).stop_timeout_s
            timeout_s = own_s if request.default_timeout else request.timeout_s
            message = agent_pb2.StopRequest(
                id=container.id,
                timeout_s=request.timeout_s,
                signal=request.signal,
                default_timeout=request.default_timeout,
            )
            status: types_pb2.ContainerStatus = agent.call(
                "Containers", "Stop", message, timeout_s=timeout_s + STOP_MARGIN_S
            )
            return status

        container, status = self.at_owner(request.name, stop)
        self.store.set_desired(container.id, Desired.STOPPED)
        return self._complete(container, status)

    def kill(self, name: str, signal: str) -> None:
        self.at_owner(
            name,
            lambda agent, c: agent.call("Containers", "Kill", agent_pb2.KillRequest(id=c.id, signal=signal)),
        )

    def remove(self, name: str, *, force: bool, volumes: bool = False) -> None:
        """From the host, then from the store. Refused while a move is under way."""
        container = self.store.container(name)
        if move := self.move_of(container):
            raise WrongState(
                f"{container.name} is being moved: {move}", hint=f"wait for it (migrate watch {move}) or cancel it"
            )

        def remove(agent: Agent, container: Container) -> None:
            try:
                agent.call(
                    "Containers", "Remove", agent_pb2.RemoveRequest(id=container.id, force=force, volumes=volumes)
                )
            except NotFound:
                if self.store.container(container.id).owner != container.owner:
                    raise  # it has just been moved away

        self.at_owner(container.id, remove)
        self.store.remove_container(container.id)

    def wait(self, name: str, call: Call) -> types_pb2.ContainerStatus:
        """Returns when it has exited, on whatever host; gives up when the caller's call ends."""
        container = self.store.container(name)
        away_since: float | None = None
        while True:
            owner, error, status = container.owner, None, None
            try:
                pending = self.pool.agent(owner).begin("Containers", "Wait", agent_pb2.WaitRequest(id=container.id))
                bind(call, pending)
                status = pending.result()
            except MigrateError as exc:
                error = exc
            before = container
            try:
                container = self.store.container(container.id)
            except NotFound:
                if status is not None and status.state in STOPPED:
                    return self._complete(before, status, "")  # it removed itself, and somebody has looked
                raise  # removed meanwhile
            if container.owner != owner:
                continue  # it went on living elsewhere
            if status is not None and status.state in STOPPED:
                return self._complete(container, status)
            if isinstance(error, NotFound) and self._forget(container):
                raise Removed(container.name) from error
            if not call.is_active():
                raise Cancelled(f"nobody waits for {container.name} any more")
            if isinstance(error, Unreachable):
                away_since = away_since or time.monotonic()
                if time.monotonic() - away_since > WAIT_PATIENCE_S:
                    raise error
            elif error is not None and not self.move_of(container):
                raise error
            else:
                away_since = None
            self._sleep(0.2)

    # ------------------------------------------------------------ all containers

    def list(self, *, all: bool, host: str = "", size: bool = False) -> list[types_pb2.ContainerStatus]:
        """By name. Nothing is hidden because its host is silent: then the state is unspecified and `error` says why."""
        hosts = [self.store.host(host).name] if host else [one.name for one in self.store.hosts()]
        answers = {
            answer.host: answer
            for answer in ask_all(
                self.pool,
                hosts,
                lambda agent: agent.call("Containers", "List", agent_pb2.ListRequest(size=size), retries=LIST_RETRIES),
            )
        }
        seen = {
            name: {status.spec.id: status for status in answer.value.containers}
            for name, answer in answers.items()
            if answer.value is not None
        }
        moves = {m.container_id: m.id for m in self.store.migrations(active=True)}
        result: list[types_pb2.ContainerStatus] = []
        for container in self.store.containers(host):
            status = seen.get(container.owner, {}).get(container.id)
            if status is not None:
                status = self._complete(container, status, moves.get(container.id, ""))
            else:
                status = self._unseen(container, answers.get(container.owner))
                if status is None:
                    continue
            unknown = status.state == types_pb2.CONTAINER_STATE_UNSPECIFIED
            runs = container.desired is Desired.RUNNING if unknown else status.state not in STOPPED
            if all or runs:
                result.append(status)
        return result

    def _unseen(self, container: Container, answer: Answer[Any] | None) -> types_pb2.ContainerStatus | None:
        """Its owner did not answer, or does not list it: it has just been made, moved, or is gone; None: it removed
        itself.
        """
        if answer is not None and answer.error is not None:
            return self._unknown(container, answer.error)
        try:
            return self.inspect(container.id)
        except Removed:
            return None
        except MigrateError as exc:
            return self._unknown(container, exc)

    def coming(self) -> frozenset[str]:
        """Ids of containers that are being made just now."""
        return frozenset(self._coming)

    # ------------------------------------------------------------ owners

    def at_owner(self, name: str, action: Callable[[Agent, Container], Any]) -> tuple[Container, Any]:
        """`action` on the owner's agent; once more where the container was moved away before the agent was asked."""
        container = self.store.container(name)
        for _ in range(OWNER_TRIES - 1):
            try:
                return container, action(self.pool.agent(container.owner), container)
            except MigrateError:
                owner = container.owner
                container = self.store.container(container.id)
                if container.owner == owner:
                    raise
        return container, action(self.pool.agent(container.owner), container)

    def _forget(self, container: Container) -> bool:
        """Its owner has just said that it does not have it. One that is removed at its exit is gone then, with name and
        address; of any other, and of one that is still being made or moved, it is no proof.
        """
        if not create.spec_of(container).remove_on_exit or container.id in self._coming:
            return False
        try:
            self.store.remove_container(container.id)
        except WrongState:
            return False  # a move is under way
        return True

    def move_of(self, container: Container) -> str:
        found = self.store.migrations(container_id=container.id, active=True)
        return found[0].id if found else ""

    def complete(self, container: Container, status: types_pb2.ContainerStatus) -> types_pb2.ContainerStatus:
        """With what only the fleet knows."""
        return self._complete(container, status)

    def _complete(
        self, container: Container, status: types_pb2.ContainerStatus, move: str | None = None
    ) -> types_pb2.ContainerStatus:
        status.spec.name = container.name  # what the fleet calls it, also while its host has not heard of a new name
        status.host = container.owner
        status.epoch = container.epoch
        status.migration_id = self.move_of(container) if move is None else move
        return status

    def _unknown(self, container: Container, error: MigrateError) -> types_pb2.ContainerStatus:
        status = types_pb2.ContainerStatus(
            spec=create.spec_of(container), state=types_pb2.CONTAINER_STATE_UNSPECIFIED, error=error.message
        )
        return self._complete(container, status)


def _inspect(agent: Agent, container: Container) -> types_pb2.ContainerStatus:
    status: types_pb2.ContainerStatus = agent.call("Containers", "Inspect", agent_pb2.InspectRequest(id=container.id))
    return status
