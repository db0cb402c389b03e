"""What keeps a container from moving by the way it was made. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Set

from agent.engine.spec import ContainerSpec, Network
from agent.scan.finding import Blocker


def of_network(network: Network) -> list[Blocker]:
    """What its network keeps from moving."""
    if network.mode != "host":
        return []
    return [
        Blocker(
            check="host-namespace",
            what="it uses the host's network (--network host): its addresses and connections are the host's and stay there",
            remedy="run it with --network bridge, publish its ports with -p",
        )
    ]


def of_mounts(
    spec: ContainerSpec, used_by: Callable[[str], Iterable[ContainerSpec]], shared: Set[str]
) -> list[Blocker]:
    """What of its mounts keeps it from moving. `used_by`: the containers here that have a volume; `shared`: volumes that need not move."""
    found: list[Blocker] = []
    for mount in spec.mounts:
        if mount.kind == "bind" and mount.propagation.removeprefix("r") in ("slave", "shared"):
            what = f"its bind mount at {mount.target} receives mounts of this host ({mount.propagation}): those cannot go along"
            found.append(
                Blocker(check="propagation", what=what, where=spec.name, remedy="run it without that propagation")
            )
    for name in dict.fromkeys(mount.source for mount in spec.mounts if mount.kind == "volume"):
        others = sorted(user.name for user in used_by(name) if user.id != spec.id)
        if others and name not in shared:
            found.append(
                Blocker(
                    check="shared-volume",
                    what=f"volume {name} is used by {', '.join(others)} too: it cannot be on two hosts",
                    where=spec.name,
                    remedy=f"remove {others[0]} first, or use a volume that every host has: migrate volume create --shared PATH NAME",
                )
            )
    return found
