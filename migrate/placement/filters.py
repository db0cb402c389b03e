"""Why a host cannot take a container. Each filter yields its reasons, for people; a host without any can take it."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from migrate.placement.model import Need, Room, missing_bytes

Filter = Callable[[Need, Room], Iterator[str]]


def down(_need: Need, room: Room) -> Iterator[str]:
    if room.host.silence:
        yield f"does not answer: {room.host.silence}"


def cordoned(_need: Need, room: Room) -> Iterator[str]:
    if room.host.cordon is not None:
        yield "is cordoned" + (f": {room.host.cordon}" if room.host.cordon else "")


def own(need: Need, room: Room) -> Iterator[str]:
    if need.source == room.name:
        yield f"{need.name} is there already"


def constraints(need: Need, room: Room) -> Iterator[str]:
    for one in need.constraints:
        if not one.met(room.host.labels):
            found = room.host.labels.get(one.key)
            yield f"does not meet {one}: " + (f"{one.key} is {found}" if found is not None else f"it has no {one.key}")


def abilities(_need: Need, room: Room) -> Iterator[str]:
    for one in room.host.lacking:
        yield f"{one} does not work there"


def processors(need: Need, room: Room) -> Iterator[str]:
    """One container's limit must be there; of all together more may be promised than there is."""
    if room.host.cpus and need.cpus > room.host.cpus:
        yield f"has {room.host.cpus} processors, {need.cpus:g} are asked for"


def blockers(need: Need, room: Room) -> Iterator[str]:
    yield from need.blockers.get(room.name, ())


def memory(need: Need, room: Room) -> Iterator[str]:
    if room.memory_free < need.memory_bytes:
        yield f"has {max(0, room.memory_free) >> 20} MiB of memory free, {need.memory_bytes >> 20} MiB are needed"


def disk(need: Need, room: Room) -> Iterator[str]:
    if room.disk_free < need.disk_bytes:  # before the layers are looked at: they are many
        yield f"has {max(0, room.disk_free) >> 20} MiB of disk free, {need.disk_bytes >> 20} MiB are needed"
    elif room.disk_free < (wanted := need.disk_bytes + missing_bytes(need, room.host)):
        yield f"has {room.disk_free >> 20} MiB of disk free, {wanted >> 20} MiB are needed with the image's layers"


def ports(need: Need, room: Room) -> Iterator[str]:
    for port in need.ports:
        if room.conflict(port):
            yield f"port {port[1]}/{port[2]} is published there already"


def affinity(need: Need, room: Room) -> Iterator[str]:
    for key, value in need.affinity:
        if room.terms[(key, value)] <= 0:
            yield f"no container with {key}={value} is there, beside which it must be"
    for key, value in need.anti_affinity:
        if room.terms[(key, value)] > 0:
            yield f"a container with {key}={value} is there, beside which it must not be"
    if any(room.unwanted.values()):
        for key, value in need.labels.items():
            if room.unwanted[(key, value)] > 0:
                yield f"a container is there that must not be beside one with {key}={value}"


# What does not change while a plan is made, and what does. The cheap ones first.
LASTING: tuple[Filter, ...] = (down, cordoned, own, constraints, abilities, processors, blockers)
CHANGING: tuple[Filter, ...] = (memory, disk, ports, affinity)


def refusals(need: Need, room: Room) -> list[str]:
    """Every reason; of a silent host that one alone, for nothing else is known of it."""
    if silent := list(down(need, room)):
        return silent + list(cordoned(need, room))
    return [reason for one in (*LASTING, *CHANGING) for reason in one(need, room)]


def fits(need: Need, room: Room, filters: tuple[Filter, ...]) -> bool:
    """Whether none of `filters` has a reason; stops at the first."""
    return all(next(one(need, room), None) is None for one in filters)
