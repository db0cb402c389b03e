"""A container's mounts: what the request says, and a volume for every place where the image wants one and the request has nothing."""

from __future__ import annotations

import secrets
from collections.abc import Iterable

from migrate.coordinator.agents import AgentPool
from migrate.coordinator.hosts import LIST_RETRIES, ask_all
from migrate.coordinator.store import Store
from migrate.errors import InvalidArgument
from protos import agent_pb2, types_pb2


def resolved(requested: Iterable[types_pb2.Mount], image_volumes: Iterable[str]) -> list[types_pb2.Mount]:
    """Anonymous volumes get their names here, so that they are called the same wherever the container goes."""
    result: list[types_pb2.Mount] = []
    for one in requested:
        mount = types_pb2.Mount()
        mount.CopyFrom(one)
        if mount.kind == "volume" and not mount.source:
            mount.anonymous, mount.source = True, secrets.token_hex(32)
        result.append(mount)
    taken = {clean(mount.target) for mount in result}
    for path in map(clean, image_volumes):
        if path not in taken and path != "/":
            taken.add(path)
            result.append(types_pb2.Mount(kind="volume", source=secrets.token_hex(32), target=path, anonymous=True))
    return result


def homes(store: Store, pool: AgentPool, requested: Iterable[types_pb2.Mount]) -> frozenset[str]:
    """The hosts that have the named volumes among the mounts; none where no host has any yet, or every host will do.

    Raises InvalidArgument where no host has all of them that there are.
    """
    names = {mount.source for mount in requested if mount.kind == "volume" and mount.source and not mount.anonymous}
    hosts = [host.name for host in store.hosts()]
    if not names or len(hosts) == 1:
        return frozenset()
    request = agent_pb2.ListVolumesRequest()
    answers = ask_all(pool, hosts, lambda agent: agent.call("Volumes", "List", request, retries=LIST_RETRIES))
    having: dict[str, set[str]] = {}
    for answer in answers:
        for volume in answer.value.volumes if answer.value is not None else ():
            if volume.name in names and not volume.shared:
                having.setdefault(volume.name, set()).add(answer.host)
    if not having:
        return frozenset()
    common = set.intersection(*having.values())
    if not common:
        where = "; ".join(f"{name} on {', '.join(sorted(on))}" for name, on in sorted(having.items()))
        raise InvalidArgument(f"no host has all of the volumes: {where}", hint="name a host: --host")
    return frozenset(common)


def clean(path: str) -> str:
    return "/" + "/".join(part for part in path.split("/") if part not in ("", "."))
