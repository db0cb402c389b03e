"""`migrate images`, `image inspect` and `history`: what there is."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING, Any

from migrate.cli import image_filters, tables, templates
from migrate.cli.free import Free
from migrate.records import Image

if TYPE_CHECKING:
    from migrate.client import Client

NONE = "<none>"
COLUMNS = ("Repository", "Tag", "Digest", "ID", "Hosts", "CreatedSince", "Size")
HEADINGS = {"ID": "IMAGE ID", "CreatedSince": "CREATED", "CreatedAt": "CREATED AT", "VirtualSize": "SIZE"}
STEP_HEADINGS = {
    "ID": "LAYER",
    "CreatedSince": "CREATED",
    "CreatedAt": "CREATED AT",
    "CreatedBy": "CREATED BY",
    "Size": "SIZE",
    "Comment": "COMMENT",
}


def images(client: Client, args: argparse.Namespace) -> int:
    """A line an image, the same on several hosts in one."""
    found = client.images()
    if args.host:
        found = [image for image in found if image.host == args.host]
    found = image_filters.select(found, args.filter, args.repository or "")
    found.sort(key=lambda image: (image.repository, image.tag, -image.created_unix_ns, image.host))
    if args.quiet:
        for digest in dict.fromkeys(image.digest for image in found):
            print(digest if args.no_trunc else tables.short(digest))
        return 0
    if args.format == "json":
        _json([image.to_dict() | _listed([image], truncate=False) for image in found])
        return 0
    same: dict[tuple[str, str], list[Image]] = {}
    for image in found:
        same.setdefault((image.name, image.digest), []).append(image)
    rows = [_listed(copies, truncate=not args.no_trunc) for copies in same.values()]
    if args.format == "table":
        columns = [name for name in COLUMNS if name != "Digest" or args.digests]
        print(
            tables.table(
                [HEADINGS.get(name, name.upper()) for name in columns],
                [[row[name] for name in columns] for row in rows],
            )
        )
    elif rows or args.format.startswith("table "):
        print(templates.show(args.format, rows, HEADINGS))
    return 0


def _listed(copies: list[Image], *, truncate: bool) -> dict[str, Any]:
    """Docker's fields of an image, and the hosts that have it."""
    one = copies[0]
    known = {origin.partition("@")[2] for copy in copies for origin in copy.repo_digests}
    users = [name for copy in copies for name in copy.used_by]
    return {
        "Repository": one.repository or NONE,
        "Tag": one.tag or NONE,
        "Digest": min(known) if known else NONE,
        "ID": tables.short(one.digest) if truncate else one.digest,
        "Hosts": ",".join(copy.host for copy in copies),
        "CreatedSince": f"{tables.ago(one.created_unix_ns)} ago" if one.created_unix_ns else "-",
        "CreatedAt": tables.stamp(one.created_unix_ns),
        "Size": tables.size(one.size_bytes),
        "VirtualSize": tables.size(one.size_bytes),
        "Containers": str(len(users)),
        "Labels": Free(one.defaults.labels),
    }


def inspect(client: Client, args: argparse.Namespace) -> int:
    """A JSON list, an object for each image that one of the names means, with the hosts that have it; or a template's text."""
    from migrate.cli import failures
    from migrate.errors import MigrateError

    status = 0
    shown: list[dict[str, Any]] = []
    for name in args.images:
        try:
            shown += looked_at(client, name, host=args.host)
        except MigrateError as exc:
            status = failures.report(exc, command="image")
    if args.format == "json":
        _json(shown)
    elif shown:
        print(templates.show(args.format, shown))
    return status


def looked_at(client: Client, name: str, *, host: str = "") -> list[dict[str, Any]]:
    """Of each image that `name` means. Raises NotFound."""
    copies: dict[str, list[Image]] = {}
    for image in client.inspect_image(name, host=host):
        copies.setdefault(image.digest, []).append(image)
    return [_inspected(same) for same in copies.values()]


def _inspected(copies: list[Image]) -> dict[str, Any]:
    image = copies[0]
    document = json.loads(image.document) if image.document else {}
    config = document.get("config") or {}
    repo_digests = sorted({origin for copy in copies for origin in copy.repo_digests})
    ours = {
        "name": image.name,
        "digest": image.digest,
        "hosts": [copy.host for copy in copies],
        "used_by": {copy.host: list(copy.used_by) for copy in copies if copy.used_by},
        "repo_digests": repo_digests,
        "created": tables.stamp(image.created_unix_ns),
        "architecture": document.get("architecture", ""),
        "os": document.get("os", ""),
        "size_bytes": image.size_bytes,
        "stored_bytes": image.stored_bytes,
        "config": config,
        "layers": [
            {"diff_id": diff_id, "size_bytes": size}
            for diff_id, size in zip(image.layers, image.layer_bytes, strict=False)
        ],
        "history": document.get("history") or [],
    }
    # Go's encoder writes these fields whether they are set or not, and templates ask for them.
    lists = dict.fromkeys(("Env", "Cmd", "Entrypoint", "OnBuild", "Shell"))
    maps = {name: Free(config.get(name) or {}) for name in ("Labels", "ExposedPorts", "Volumes")}
    docker = {
        "Id": image.digest,
        "RepoTags": [f"{image.repository}:{image.tag}"] if image.repository and image.tag else [],
        "RepoDigests": repo_digests,
        "Created": document.get("created", ""),
        "Author": document.get("author", ""),
        "Architecture": document.get("architecture", ""),
        "Os": document.get("os", ""),
        "Size": image.size_bytes,
        "VirtualSize": image.size_bytes,
        "Config": {**lists, "User": "", "WorkingDir": "", "StopSignal": "", "Healthcheck": None, **config, **maps},
        "RootFS": {"Type": "layers", "Layers": list(image.layers)},
    }
    return ours | docker


def history(client: Client, args: argparse.Namespace) -> int:
    """A line for each step that made the image, newest first; of an image without a history, one for each layer."""
    image = client.inspect_image(args.image, host=args.host)[0]
    steps = _steps(image)
    if args.format == "json":
        _json(steps)
        return 0
    if args.quiet:
        for step in steps:
            print((step["layer"] if args.no_trunc else tables.short(step["layer"])) or NONE)
        return 0
    rows = []
    for step in steps:
        created_by = " ".join(step["created_by"].split())
        if not args.no_trunc:
            created_by = created_by if len(created_by) <= 45 else created_by[:44] + "…"
        rows.append(
            step
            | {
                "ID": (step["layer"] if args.no_trunc else tables.short(step["layer"])) or "-",
                "CreatedSince": f"{tables.ago(step['created_unix_ns'])} ago" if step["created_unix_ns"] else "-",
                "CreatedAt": step["created"],
                "CreatedBy": created_by or "-",
                "Size": tables.size(step["size_bytes"]),
                "Comment": step["comment"],
            }
        )
    if args.format == "table":
        columns = {name: head for name, head in STEP_HEADINGS.items() if name != "CreatedAt"}
        print(tables.table(list(columns.values()), [[row[name] for name in columns] for row in rows]))
    else:
        print(templates.show(args.format, rows, STEP_HEADINGS))
    return 0


def _steps(image: Image) -> list[dict[str, Any]]:
    document = json.loads(image.document) if image.document else {}
    sizes = dict(zip(image.layers, image.layer_bytes, strict=False))
    layers = list(document.get("rootfs", {}).get("diff_ids") or image.layers)
    recorded = document.get("history") or [{"created": document.get("created", "")} for _ in layers]
    steps = []
    for entry in recorded:
        layer = "" if entry.get("empty_layer") or not layers else layers.pop(0)
        steps.append(
            {
                "layer": layer,
                "created": entry.get("created") or "",
                "created_unix_ns": _unix_ns(entry.get("created") or ""),
                "created_by": entry.get("created_by") or "",
                "size_bytes": sizes.get(layer, 0),
                "comment": entry.get("comment") or "",
            }
        )
    return steps[::-1]


def _unix_ns(text: str) -> int:
    """Of a time in RFC 3339; 0 where it is none: other people's documents must not stop a table."""
    import datetime
    import re

    found = re.fullmatch(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.\d+)?(Z|[+-]\d\d:\d\d)", text)
    if not found:
        return 0
    zone = "+00:00" if found[2] == "Z" else found[2]
    return max(0, int(datetime.datetime.fromisoformat(found[1] + zone).timestamp()) * 10**9)


def _json(value: object) -> None:
    json.dump(value, sys.stdout, indent=2)
    print()
