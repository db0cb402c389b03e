"""What is known of the hosts, and what a container needs of one. Bytes are bytes, processors are processors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from migrate.placement.labels import Constraint, Term

Port = tuple[str, int, str]  # host address ("" = every one), port, "tcp" or "udp"


@dataclass(frozen=True, kw_only=True)
class Resident:
    """A container that is on a host, or on its way there. `cpus`: its limit, 0 = none."""

    container_id: str
    labels: Mapping[str, str] = field(default_factory=dict)
    anti_affinity: tuple[Term, ...] = ()
    ports: tuple[Port, ...] = ()
    cpus: float = 0.0


@dataclass(frozen=True, kw_only=True)
class HostState:
    """One host. `silence`: why it does not answer, "" = it does; then the other facts are empty. `cordon`: the reason, None = it is not
    cordoned. `lacking`: what it needs to take any container and does not have. `cpus` 0 = not known.
    """

    name: str
    silence: str = ""
    cordon: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    lacking: tuple[str, ...] = ()
    cpus: int = 0
    memory_bytes: int = 0
    memory_free_bytes: int = 0
    disk_free_bytes: int = 0
    layers: frozenset[str] = frozenset()
    residents: tuple[Resident, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Need:
    """What a container needs of the host that takes it.

    `source`: where it is, "" of one that is still to be made. `layers`: bytes of each layer of its image. `kept_by`: hosts that have
    pages of it from an earlier stay. `blockers`: by host, what the checks of a move have found against it there
    (architecture, CRIU, processors, kernels, networks), and what that host itself has said.
    """

    container_id: str
    name: str
    source: str = ""
    memory_bytes: int = 0
    disk_bytes: int = 0
    cpus: float = 0.0
    labels: Mapping[str, str] = field(default_factory=dict)
    constraints: tuple[Constraint, ...] = ()
    affinity: tuple[Term, ...] = ()
    anti_affinity: tuple[Term, ...] = ()
    ports: tuple[Port, ...] = ()
    layers: Mapping[str, int] = field(default_factory=dict)
    kept_by: frozenset[str] = frozenset()
    blockers: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def resident(self) -> Resident:
        """What it is once a host has it."""
        return Resident(
            container_id=self.container_id,
            labels=self.labels,
            anti_affinity=self.anti_affinity,
            ports=self.ports,
            cpus=self.cpus,
        )


class Room:
    """A host while a plan is made: what is left of it. `put` and `take` are each other's undoing."""

    def __init__(self, host: HostState) -> None:
        self.host = host
        self.name = host.name
        self.memory_free = host.memory_free_bytes
        self.disk_free = host.disk_free_bytes
        self.cpus_promised = 0.0
        self.residents = 0
        self.terms: Counter[Term] = Counter()  # labels of what is here
        self.unwanted: Counter[Term] = Counter()  # labels that what is here does not want beside it
        self.ports: Counter[tuple[int, str]] = Counter()  # of every address
        self.bound: Counter[Port] = Counter()  # of one address
        for one in host.residents:
            self._count(one, 1)

    def put(self, need: Need) -> None:
        self._reserve(need, 1)

    def take(self, need: Need) -> None:
        self._reserve(need, -1)

    def conflict(self, port: Port) -> bool:
        """Whether something here has it already; one on every address is in the way of all."""
        address, number, protocol = port
        if self.ports[(number, protocol)]:
            return True
        if address:
            return self.bound[port] > 0
        return any(count and (n, p) == (number, protocol) for (_, n, p), count in self.bound.items())

    def _reserve(self, need: Need, sign: int) -> None:
        self.memory_free -= sign * need.memory_bytes
        self.disk_free -= sign * (need.disk_bytes + missing_bytes(need, self.host))
        self._count(need.resident(), sign)

    def _count(self, one: Resident, sign: int) -> None:
        self.residents += sign
        self.cpus_promised += sign * one.cpus
        for term in one.labels.items():
            self.terms[term] += sign
        for term in one.anti_affinity:
            self.unwanted[term] += sign
        for port in one.ports:
            if port[0]:
                self.bound[port] += sign
            else:
                self.ports[(port[1], port[2])] += sign


def missing_bytes(need: Need, host: HostState) -> int:
    """Of image layers that the host would have to get."""
    return sum(size for layer, size in need.layers.items() if layer not in host.layers)
