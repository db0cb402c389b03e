"""The inventory: which hosts there are, whether they answer, and one question put to all of them at the same time."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Generic, TypeVar

from migrate.coordinator.agents import Agent, AgentPool
from migrate.coordinator.store import Cordon, Host, Store
from migrate.errors import InvalidArgument, MigrateError, WrongState
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
NO_HOSTS = "fleet.wrong_state"
LABEL_KEY = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._/-]{0,126}[A-Za-z0-9])?")


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


def needed(store: Store) -> list[str]:
    """The names of all hosts. Raises WrongState where there is none yet: nothing can be run, pulled or imported then."""
    names = [host.name for host in store.hosts()]
    if not names:
        raise WrongState(
            "this fleet has no hosts yet",
            hint="migrate host add host1 root@ADDRESS makes a machine one: docs/hosts.md",
            code=NO_HOSTS,
        )
    return names


def put_configured(store: Store, hosts: Iterable[Host]) -> list[str]:
    """Make the store's hosts those of the configuration, and those that have joined. Returns why each host that is no longer in it
    had to stay.
    """
    wanted = {host.name: host for host in hosts}
    for host in wanted.values():
        store.put_host(host)
    kept: list[str] = []
    for host in store.hosts():
        if host.name not in wanted and not host.joined:
            try:
                store.remove_host(host.name)
            except MigrateError as exc:
                kept.append(exc.message)
    return kept


def statuses(
    store: Store, pool: AgentPool, *, facts: bool, only: Iterable[str] | None = None
) -> list[coordinator_pb2.HostStatus]:
    """Every host, or `only` those, by name. Each is asked either way: reachable means that its agent has just answered."""
    hosts = store.hosts() if only is None else [store.host(name) for name in only]
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
            labels=host.labels,
            cordoned=host.cordon is not None,
            cordon_reason=host.cordon.reason if host.cordon else "",
            cordoned_unix_ns=host.cordon.unix_ns if host.cordon else 0,
            pulse=coordinator_pb2.HostPulse(
                health=host.pulse.health,
                since_unix_ns=host.pulse.since_unix_ns,
                seen_unix_ns=host.pulse.seen_unix_ns,
                error=host.pulse.error,
            ),
            joined=host.joined,
            login=host.login,
            host_keys=host.host_keys,
        )
        if facts and answer.value is not None:
            status.facts.CopyFrom(answer.value)
        result.append(status)
    return result


def cordon(store: Store, name: str, reason: str) -> None:
    """No new containers or moves from now on. Idempotent: the first reason and time stay unless another reason is given."""
    known = store.host(name).cordon
    if known is None or (reason and reason != known.reason):
        store.set_cordon(name, Cordon(reason=reason, unix_ns=known.unix_ns if known else time.time_ns()))


def uncordon(store: Store, name: str) -> None:
    """It takes containers and moves again. Idempotent."""
    store.set_cordon(store.host(name).name, None)


def label(store: Store, name: str, labels: Mapping[str, str], remove: Iterable[str]) -> None:
    """Raises InvalidArgument for what is no key."""
    for key in (*labels, *remove):
        if not LABEL_KEY.fullmatch(key):
            raise InvalidArgument(
                f"{key!r} is no key of a label", hint="letters, digits and ._/- such as disk or zone/rack"
            )
    store.set_labels(store.host(name).name, labels, remove)
