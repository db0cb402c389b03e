"""Why a container that is to come could not be here: its name, address, MAC, beside what is here already. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from agent.engine.spec import ContainerSpec
from agent.scan.finding import Blocker


def conflicts(
    container_id: str, name: str, address: str, mac: str, here: Iterable[ContainerSpec], bridge_addresses: Sequence[str]
) -> list[Blocker]:
    """`here`: every container of this host; `address` and those of the bridge as "10.88.1.2/16", "" = none."""
    found: list[Blocker] = []
    plain = address.partition("/")[0]
    for other in here:
        if other.id == container_id:
            continue
        whose = f"container {other.name} ({other.id[:12]}), which the fleet may have lost sight of"
        for check, wanted, taken, shown in (
            ("name", name, other.name, name),
            ("address", plain, other.network.address.partition("/")[0], plain),
            ("mac", mac, other.network.mac, mac),
        ):
            if wanted and wanted == taken:
                found.append(
                    Blocker(
                        check=check,
                        what=f"{check} {shown} is taken by {whose}",
                        remedy=f"remove or rename that container: migrate ps --all, migrate rm {other.name}",
                    )
                )
    for own in bridge_addresses:
        if plain and own.partition("/")[0] == plain:
            found.append(
                Blocker(
                    check="address",
                    what=f"address {plain} is the bridge's own",
                    remedy="give the bridge another address, or leave it out of the fleet's range",
                )
            )
    return found
