"""The inventory: which hosts there are, whether they answer, and one question put to all of them at the same time."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

from migrate.coordinator.agents import Agent, AgentPool
from migrate.coordinator.store import Host, Store
from migrate.errors import MigrateError
from protos import agent_pb2, coordinator_pb2

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class Answer(Generic[T]):
    """One host's: either `value` or `error`."""

    host: str
    value: T | None = None
    error: MigrateError | None = None


# A table of all hosts must not wait long for the one that is down; an agent that is just being restarted answers then.
LIST_RETRIES = 1


def ask_all(pool: AgentPool, hosts: Iterable[str], question: Callable[[Agent], T]) -> list[Answer[T]]:
    """In the order of `hosts`; takes as long as the slowest one. A host that fails fails alone.

    Raises NotFound for a host that the fleet does not have.
    """
    agents = [pool.agent(name) for name in hosts]

    def ask(agent: Agent) -> Answer[T]:
        try:
            return Answer(host=agent.name, value=question(agent))
        except MigrateError as exc:
            return Answer(host=agent.name, error=exc)

    if len(agents) == 1:
        return [ask(agents[0])]
    with ThreadPoolExecutor(max_workers=max(1, len(agents)), thread_name_prefix="ask") as executor:
        return list(executor.map(ask, agents))


def put_configured(store: Store, hosts: Iterable[Host]) -> list[str]:
    """Make the store's hosts those of the configuration. Returns why each host that is no longer in it had to stay."""
    wanted = {host.name: host for host in hosts}
    for host in wanted.values():
        store.put_host(host)
    kept: list[str] = []
    for host in store.hosts():
        if host.name not in wanted:
            try:
                store.remove_host(host.name)
            except MigrateError as exc:
                kept.append(exc.message)
    return kept


def statuses(store: Store, pool: AgentPool, *, facts: bool) -> list[coordinator_pb2.HostStatus]:
    """Every host by name. Each is asked either way: reachable means that its agent has just answered."""
    hosts = store.hosts()
    request = agent_pb2.FactsRequest()
    owned = {host.name: len(store.containers(host.name)) for host in hosts}
    answers = ask_all(pool, owned, lambda agent: agent.call("Host", "Facts", request, retries=LIST_RETRIES))
    result: list[coordinator_pb2.HostStatus] = []
    for host, answer in zip(hosts, answers, strict=True):
        status = coordinator_pb2.HostStatus(
            name=host.name,
            address=host.address,
            port=host.port,
            reachable=answer.error is None,
            error=answer.error.message if answer.error else "",
            containers=owned[host.name],
        )
        if facts and answer.value is not None:
            status.facts.CopyFrom(answer.value)
        result.append(status)
    return result
