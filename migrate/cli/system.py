"""`migrate info`, `migrate system info`, `system df` and `system prune`: the fleet as a whole."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import migrate
from migrate.cli import prune, tables, templates
from migrate.cli.parsers import command

if TYPE_CHECKING:
    from migrate.cli.parsers import Subparsers
    from migrate.client import Client
    from migrate.records import Container, Host, Image

INFO = """
migrate info
migrate info --format json
migrate info -f '{{.ContainersRunning}} of {{.Containers}} run'
"""
DF = """
migrate system df
migrate system df --host host1
migrate system df --format '{{.Type}}: {{.Reclaimable}}'
"""
RUNS = ("running", "paused", "frozen", "lost")


def add_parser(subparsers: Subparsers) -> None:
    info = command(
        subparsers, "info", help="show the fleet as a whole: hosts, containers, images, versions", examples=INFO
    )
    _format(info)
    family = command(subparsers, "system", help="the fleet as a whole: info, df, prune", examples=DF)
    verbs = family.add_subparsers(dest="verb", required=True, metavar="VERB")
    _format(command(verbs, "info", help="the same as migrate info", examples="migrate system info"))
    df = command(verbs, "df", help="show what takes space on the hosts' disks, and what of it is not used", examples=DF)
    df.add_argument("--host", default="", help="only on this host (default: on all of them together)")
    templates.add_option(df, text="table, json, or a template: .Type .TotalCount .Active .Size .Reclaimable")
    everything = command(
        verbs,
        "prune",
        help="remove containers that do not run, and images that nothing names",
        examples="migrate system prune -f --all",
    )
    prune.add_everything(everything)


def _format(parser: argparse.ArgumentParser) -> None:
    templates.add_option(
        parser, "-f", "--format", text="table, json, or a template with Docker's fields: '{{.Containers}} {{.NCPU}}'"
    )


def run(args: argparse.Namespace) -> int:
    from migrate.client import Client

    if args.command == "system" and args.verb == "prune":
        return prune.run(args)
    with Client(args.coordinator) as client:
        try:
            return _df(client, args) if args.command == "system" and args.verb == "df" else _info(client, args)
        except argparse.ArgumentTypeError as exc:
            print(f"error: {exc}", file=sys.stderr)
            return 2


# ---------------------------------------------------------------- info


def _info(client: Client, args: argparse.Namespace) -> int:
    version, hosts = client.version(), client.hosts()
    containers, images = client.containers(all=True), client.images()
    if args.format == "table":
        print(described(version.fleet, version.version, hosts, containers, images))
    elif args.format == "json":
        print(templates.listing("json", [fields(version.fleet, version.version, hosts, containers, images)], (), ()))
    else:
        print(templates.line(args.format, fields(version.fleet, version.version, hosts, containers, images)))
    return 0


def fields(
    fleet: str, version: str, hosts: Iterable[Host], containers: Iterable[Container], images: Iterable[Image]
) -> dict[str, Any]:
    """Docker's names for the sum of all hosts that answer; `Hosts` has each."""
    hosts, states = list(hosts), [one.state for one in containers]
    facts = [host.facts for host in hosts if host.facts is not None]
    return {
        "Name": fleet,
        "ServerVersion": version,
        "ClientInfo": {"Version": migrate.__version__},
        "Containers": len(states),
        "ContainersRunning": sum(state in RUNS for state in states) - states.count("paused"),
        "ContainersPaused": states.count("paused"),
        "ContainersStopped": sum(state in ("created", "exited") for state in states),
        "Images": len({image.digest for image in images}),
        "NCPU": sum(one.cpus for one in facts),
        "MemTotal": sum(one.memory_total_bytes for one in facts),
        "Architecture": ", ".join(sorted({one.architecture for one in facts})),
        "KernelVersion": ", ".join(sorted({one.kernel for one in facts})),
        "Hosts": [host.to_dict() for host in hosts],
    }


def described(fleet: str, version: str, hosts: list[Host], containers: list[Container], images: list[Image]) -> str:
    """For people."""
    found = fields(fleet, version, hosts, containers, images)
    reachable = sum(host.reachable for host in hosts)
    lines = [
        f"Fleet:        {fleet}",
        f"Coordinator:  {version} (client {migrate.__version__})",
        f"Hosts:        {len(hosts)}, {reachable} answer",
        f"Containers:   {found['Containers']}: {found['ContainersRunning']} running, {found['ContainersPaused']} paused,"
        f" {found['ContainersStopped']} stopped",
        f"Images:       {found['Images']}",
        f"Processors:   {found['NCPU']}",
        f"Memory:       {tables.size(found['MemTotal'])}",
        "",
    ]
    rows = []
    for host in hosts:
        facts = host.facts
        if facts is None:
            rows.append((host.name, host.error or "does not answer", "", "", "", "", ""))
            continue
        state = "cordoned" if host.cordoned else "ready"
        free = f"{tables.size(facts.memory_available_bytes)} of {tables.size(facts.memory_total_bytes)}"
        rows.append((host.name, state, str(facts.cpus), free, facts.kernel, facts.criu_version, facts.bridge))
    head = ("HOST", "STATE", "CPUS", "MEMORY FREE", "KERNEL", "CRIU", "BRIDGE")
    return "\n".join(lines) + tables.table(head, rows)


# ---------------------------------------------------------------- df


def _df(client: Client, args: argparse.Namespace) -> int:
    containers = [one for one in client.containers(all=True, size=True) if args.host in ("", one.host)]
    images = [one for one in client.images() if args.host in ("", one.host)]
    volumes = client.volumes(host=args.host)
    used_volumes = sum(bool(one.used_by) for one in volumes)
    stopped = [one for one in containers if one.state in ("created", "exited")]
    rows = [
        images_row(images),
        _row("Containers", len(containers), len(containers) - len(stopped), _layers(containers), _layers(stopped)),
        _row(
            "Local Volumes", len(volumes), used_volumes, None, None
        ),  # their size is not asked for: it means to read them
    ]
    cells = [list(row.values()) for row in rows]
    print(templates.listing(args.format, rows, ("TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"), cells))
    return 0


def images_row(images: Iterable[Image]) -> dict[str, Any]:
    """Layers that images of one host share count once; reclaimable are those that no container's image has."""
    everything: dict[tuple[str, str], int] = {}
    used: set[tuple[str, str]] = set()
    known = list(images)
    for image in known:
        sizes = {(image.host, layer): size for layer, size in zip(image.layers, image.layer_bytes, strict=False)}
        everything |= sizes
        if image.used_by:
            used |= set(sizes)
    names = {(image.host, image.digest): bool(image.used_by) for image in known}
    free = sum(size for layer, size in everything.items() if layer not in used)
    return _row("Images", len(names), sum(names.values()), sum(everything.values()), free)


def _layers(containers: Iterable[Container]) -> int:
    return sum(one.layer_bytes for one in containers)


def _row(kind: str, total: int, active: int, size: int | None, free: int | None) -> dict[str, Any]:
    reclaimable = "-" if size is None or free is None else tables.size(free)
    if size and free is not None:
        reclaimable += f" ({100 * free // size}%)"
    return {
        "Type": kind,
        "TotalCount": total,
        "Active": active,
        "Size": "-" if size is None else tables.size(size),
        "Reclaimable": reclaimable,
    }
