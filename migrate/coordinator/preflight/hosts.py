"""Two hosts compared: facts in, findings out. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address, ip_interface

from migrate.coordinator.preflight.finding import WARNING, Finding
from migrate.rpc.version import OURS
from protos import agent_pb2, types_pb2

SPARE_BYTES = 64 << 20  # of memory and of disk, beyond what the container has
MOST_SKEW_S = 1.0  # certificates of a move begin a minute before they are signed; files' times are off by this

# Capabilities that are not required, and what the container has from them: where only the source has one, something is lost.
_LOST = {
    "userfaultfd": "memory is restored before it runs on, not after: it stands still longer, about 0.8 s a GB",
    "criu-uffd-noncoop": "memory is restored before it runs on, not after: it stands still longer, about 0.8 s a GB",
    "userfaultfd-userns": "memory is restored before it runs on, not after: it stands still longer, about 0.8 s a GB",
    "bridged-frames": "connections through a published port do not outlive the move",
}


@dataclass(frozen=True, kw_only=True)
class Host:
    """`clock_s`: how far its clock is ahead of the coordinator's, give or take `clock_error_s`; an error of 0 = not known."""

    name: str
    facts: agent_pb2.HostFacts
    clock_s: float = 0.0
    clock_error_s: float = 0.0


def compare(
    source: Host, target: Host, coming: agent_pb2.Description, missing_bytes: int = 0, needs_minor: int = 0
) -> Iterator[Finding]:
    """What of the two hosts speaks against moving `coming`. `missing_bytes`: of its image layers that the target lacks; `needs_minor`:
    of the protocol, of both agents.
    """
    yield from _versions(source, target, needs_minor)
    yield from _processors(source, target, coming.spec)
    yield from _kernels(source, target, coming)
    yield from _room(target, coming, missing_bytes)
    yield from _network(source, target, coming.spec.network)
    yield from _clocks(source, target)


def _versions(source: Host, target: Host, needs_minor: int) -> Iterator[Finding]:
    here, there = source.facts, target.facts
    for host in (source, target):
        facts = host.facts
        its = f"its agent is migrate {facts.agent_version or '?'} (protocol {facts.protocol}.{facts.protocol_minor})"
        if facts.protocol != OURS.major:
            old = "the coordinator" if facts.protocol > OURS.major else f"the agent of {host.name}"
            yield Finding(
                check="protocol",
                what=f"{its}, the coordinator is {OURS}: they do not understand each other",
                where=host.name,
                remedy=f"upgrade {old}",
            )
        elif facts.protocol_minor < needs_minor:
            yield Finding(
                check="protocol",
                what=f"{its}, and this needs {OURS.major}.{needs_minor}",
                where=host.name,
                remedy=f"upgrade the agent of {host.name}; containers run on meanwhile",
            )
    if version(there.criu_version) < version(here.criu_version):
        yield Finding(
            check="criu",
            what=f"has CRIU {there.criu_version or 'none'}, older than {here.criu_version} on {source.name}",
            where=target.name,
            remedy=f"upgrade CRIU on {target.name}: an old one cannot read new images",
        )
    for host in (source, target):
        for capability in host.facts.capabilities:
            if capability.required and not capability.ok:
                yield Finding(
                    check="capability",
                    what=f"{capability.name} does not work here: {capability.value}",
                    where=host.name,
                    remedy=capability.remedy,
                )


def _processors(source: Host, target: Host, spec: types_pb2.ContainerSpec) -> Iterator[Finding]:
    here, there = source.facts, target.facts
    if here.architecture != there.architecture:
        yield Finding(
            check="architecture",
            what=f"is {there.architecture}, {source.name} is {here.architecture}",
            where=target.name,
            remedy="choose a host of the same architecture",
        )
        return  # their instructions have nothing to do with each other
    lacking = sorted(set(here.instructions) - set(there.instructions))
    if lacking and there.processor:  # else its agent does not say
        yield Finding(
            check="cpu-features",
            what=f"its processors lack {', '.join(lacking)}, which those of {source.name} have: a program that has looked "
            "when it started goes on using them, and dies of an illegal instruction",
            where=target.name,
            remedy="choose a host with these; or, where you know that no program uses them, --skip cpu-features",
        )
    elif here.processor != there.processor and here.processor and there.processor:
        yield Finding(
            check="cpu-features",
            what=f"its processors are {there.processor}, those of {source.name} {here.processor}: all instructions that are "
            "known are on both, how floating-point state is laid out may differ",
            where=target.name,
            remedy="CRIU refuses the restore where it matters, and the move is undone",
            severity=WARNING,
        )
    highest = max((int(number) for number in re.findall(r"\d+", spec.limits.cpuset_cpus)), default=-1)
    if there.cpus and highest >= there.cpus:
        yield Finding(
            check="cpuset",
            what=f"has {there.cpus} processors, the container is bound to {spec.limits.cpuset_cpus}",
            where=target.name,
            remedy=f"migrate update --cpuset-cpus 0-{there.cpus - 1} {spec.name}",
        )


def _kernels(source: Host, target: Host, coming: agent_pb2.Description) -> Iterator[Finding]:
    here, there = source.facts, target.facts
    if version(there.kernel)[:2] < version(here.kernel)[:2]:
        yield Finding(
            check="kernel",
            what=f"has Linux {there.kernel}, older than {here.kernel} on {source.name}: what only the newer one can do, a program "
            "that uses it loses",
            where=target.name,
            remedy="CRIU refuses what it cannot restore, and the move is undone; a host with the same kernel is safer",
            severity=WARNING,
        )
    if here.cgroup != there.cgroup and here.cgroup and there.cgroup:
        yield Finding(
            check="cgroup",
            what=f"has cgroups {there.cgroup}, {source.name} has {here.cgroup}: limits go along, what the container made under "
            "its own /sys/fs/cgroup does not",
            where=target.name,
            remedy="nothing, unless a program in the container (systemd, say) uses cgroups itself",
            severity=WARNING,
        )
    if coming.lsm_label and there.lsm != here.lsm:
        yield Finding(
            check="lsm",
            what=f"has {there.lsm or 'no security module that labels processes'}, and the container is confined by {here.lsm} of "
            f"{source.name} ({coming.lsm_label})",
            where=target.name,
            remedy=f"load {here.lsm} and the profile on {target.name}, or run the container unconfined",
        )
    able = {each.name: each.ok for each in there.capabilities}
    told: set[str] = set()
    for capability in here.capabilities:
        lost = _LOST.get(capability.name)
        if lost and capability.ok and not able.get(capability.name, True) and lost not in told:
            told.add(lost)
            yield Finding(
                check="feature",
                what=f"has no {capability.name}, {source.name} has: {lost}",
                where=target.name,
                remedy=next(each.remedy for each in there.capabilities if each.name == capability.name),
                severity=WARNING,
            )
    if coming.spec.limits.storage_bytes and not able.get("sized-layers", True):
        yield Finding(
            check="feature",
            what="cannot limit the size of a writable layer, and the container's is limited",
            where=target.name,
            remedy=next(each.remedy for each in there.capabilities if each.name == "sized-layers"),
        )


def _room(target: Host, coming: agent_pb2.Description, missing_bytes: int) -> Iterator[Finding]:
    memory = 2 * coming.memory_bytes + SPARE_BYTES  # for a moment it is there twice: as it came, and in its tasks
    if target.facts.memory_available_bytes < memory:
        yield Finding(
            check="memory",
            what=f"has {target.facts.memory_available_bytes >> 20} MiB of memory free, the move needs {memory >> 20} MiB",
            where=target.name,
            remedy="free memory there or choose another host",
        )
    disk = coming.layer_bytes + missing_bytes + SPARE_BYTES
    if target.facts.disk_available_bytes < disk:
        yield Finding(
            check="disk",
            what=f"has {target.facts.disk_available_bytes >> 20} MiB of disk free, the move needs {disk >> 20} MiB",
            where=target.name,
            remedy="free disk space there or choose another host",
        )


def _network(source: Host, target: Host, network: types_pb2.Network) -> Iterator[Finding]:
    here, there = source.facts, target.facts
    if not network.address:
        return
    own = ip_interface(network.address)
    for host in (source, target):
        networks = [ip_interface(each).network for each in host.facts.bridge_addresses]
        if networks and not any(own.ip in each for each in networks):
            yield Finding(
                check="subnet",
                what=f"its bridge {host.facts.bridge} is in {', '.join(map(str, networks))}, the container has {own}",
                where=host.name,
                remedy="connect both bridges to one segment with the fleet's addresses: docs/networks.md",
            )
    if network.gateway and ip_address(network.gateway) not in own.network:
        yield Finding(
            check="subnet",
            what=f"the container's gateway {network.gateway} is not in {own.network}",
            where=source.name,
            remedy="the fleet's gateway and subnet disagree: docs/networks.md",
        )
    if here.bridge_mtu and there.bridge_mtu and there.bridge_mtu < (network.mtu or here.bridge_mtu):
        yield Finding(
            check="mtu",
            what=f"its bridge {there.bridge} takes {there.bridge_mtu} bytes a frame, the container sends "
            f"{network.mtu or here.bridge_mtu}: its long packets would be lost",
            where=target.name,
            remedy=f"ip link set {there.bridge} mtu {network.mtu or here.bridge_mtu}, on its ports too",
        )


def _clocks(source: Host, target: Host) -> Iterator[Finding]:
    if not source.clock_error_s or not target.clock_error_s:
        return
    apart_s = target.clock_s - source.clock_s
    unsure_s = source.clock_error_s + target.clock_error_s
    if abs(apart_s) - unsure_s > MOST_SKEW_S:
        yield Finding(
            check="clock",
            what=f"its clock is {abs(apart_s):.1f} s {'ahead of' if apart_s > 0 else 'behind'} that of {source.name}: programs see "
            "time jump, and the downtime cannot be told",
            where=target.name,
            remedy="let both follow one time server: chronyc tracking, timedatectl",
            severity=WARNING,
        )


def version(text: str) -> tuple[int, ...]:
    """(4, 2, 1) of "4.2.1" and of "v4.2.1-3~bpo"; () of what has no number: older than everything."""
    found = re.match(r"v?(\d+(?:\.\d+)*)", text)
    return tuple(int(part) for part in found[1].split(".")) if found else ()
