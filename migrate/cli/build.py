"""`migrate build`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from migrate.cli import registry
from migrate.cli.parsers import command

if TYPE_CHECKING:
    from migrate.cli.parsers import Subparsers
    from migrate.client import Building

BUILD = """
migrate build -t web .
migrate build -t web:1.2 -t web:latest --host host1 -f docker/Dockerfile --target prod .
migrate build -t web --build-arg VERSION=12 --secret id=token,src=$HOME/.token .
migrate build -q -t base - < Dockerfile
"""


def add_parser(subparsers: Subparsers) -> None:
    parser = command(
        subparsers,
        "build",
        help="build an image from a Dockerfile",
        usage="migrate build [OPTIONS] CONTEXT",
        examples=BUILD,
    )
    add = parser.add_argument
    add("-t", "--tag", action="append", default=[], metavar="NAME", help="name for the image; repeatable")
    add("-f", "--file", default="", metavar="FILE", help="the Dockerfile (default: CONTEXT/Dockerfile); - reads stdin")
    add("--host", default="", help="host to build on (default: the first); the image is there")
    add(
        "--build-arg",
        action="append",
        default=[],
        metavar="KEY[=VALUE]",
        help="value of an ARG; without =VALUE the one of this environment",
    )
    add("--target", default="", metavar="STAGE", help="stage to build (default: the last)")
    add("--no-cache", action="store_true", help="do every step again")
    add("--pull", action="store_true", help="look for newer base images, even where one is on the host")
    add(
        "--network",
        choices=("default", "host", "none"),
        default="default",
        help="network of RUN: the bridge of the host, the host's own network, or none",
    )
    add(
        "--secret",
        action="append",
        default=[],
        metavar="id=NAME,src=FILE",
        help="file (or env=VARIABLE) for RUN --mount=type=secret,id=NAME; in no layer",
    )
    add("--label", action="append", default=[], metavar="KEY=VALUE", help="label of the image; repeatable")
    registry.add_access(parser)
    add("-q", "--quiet", action="store_true", help="print only the digest of the image")
    add("--progress", choices=("auto", "plain"), default="auto", help="accepted for Docker's sake: it is always plain")
    add("--format", choices=("plain", "json"), default="plain", help="json: one event a line")
    add("context", metavar="CONTEXT", help="directory whose files COPY takes; - : no files, the Dockerfile on stdin")


def run(args: argparse.Namespace) -> int:
    from migrate.cli import values
    from migrate.client import Client
    from migrate.records import Build

    try:
        text, name, context = _inputs(args)
        wanted = Build(
            dockerfile=text,
            file=name,
            tags=tuple(args.tag),
            host=args.host,
            build_args=_build_args(args.build_arg),
            target=args.target,
            no_cache=args.no_cache,
            pull=args.pull,
            network="" if args.network == "default" else args.network,
            secrets=dict(_secret(one) for one in args.secret),
            labels=values.labels(args.label),
            access=registry.access_to_named(args, "\n".join((text, *args.build_arg))),
        )
    except argparse.ArgumentTypeError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 2
    with Client(args.coordinator) as client:
        building = client.build(wanted, context)
        _follow(building, args)
        image = building.image
        assert image is not None, "it ends with an image or an error"
        if args.quiet:
            print(image.digest)
        elif args.format == "json":
            print(json.dumps({"event": "Image", **image.to_dict()}))
        else:
            names = ", ".join(args.tag) or "the image"
            print(f"built {names} on {image.host}: {image.digest}")
    return 0


def _follow(building: Building, args: argparse.Namespace) -> None:
    from migrate.records import BuildStep, BuildStepDone, BuildWarning, Output

    for event in building:
        if args.format == "json":
            if isinstance(event, Output):
                said = {"event": "Output", "stream": event.stream, "data": event.data.decode(errors="replace")}
                print(json.dumps(said), flush=True)
            else:
                print(json.dumps({"event": type(event).__name__, **event.to_dict()}), flush=True)
        elif isinstance(event, BuildWarning):
            print(f"warning: {event.text}", file=sys.stderr)
        elif args.quiet:
            continue
        elif isinstance(event, BuildStep):
            stage = f"[{event.stage}] " if event.stage else ""
            print(f"{stage}STEP {event.number}/{event.total}: {event.text}", flush=True)
        elif isinstance(event, BuildStepDone):
            if event.cached:
                print("--> CACHED", flush=True)
            elif event.layer:
                print(f"--> {event.layer.removeprefix('sha256:')[:12]} {event.duration_s:.1f} s", flush=True)
        else:
            stream = sys.stderr if event.stream == "stderr" else sys.stdout
            stream.buffer.write(event.data)
            stream.buffer.flush()


def _inputs(args: argparse.Namespace) -> tuple[str, str, Iterable[bytes]]:
    """Text of the Dockerfile, its name for messages, the context. Raises ArgumentTypeError."""
    from migrate import context

    if args.context == "-":
        if args.file:
            raise argparse.ArgumentTypeError("with - as context the Dockerfile comes from stdin: leave -f out")
        return _stdin(), "Dockerfile", _nothing()
    directory = Path(args.context)
    if not directory.is_dir():
        raise argparse.ArgumentTypeError(f"{directory} is no directory: a context is one, or - for none")
    if args.file == "-":
        return _stdin(), "Dockerfile", context.pack(directory, context.ignored(directory, None))
    file = Path(args.file) if args.file else directory / "Dockerfile"
    if not args.file and not file.exists() and (directory / "Containerfile").exists():
        file = directory / "Containerfile"
    try:
        text = file.read_bytes().decode("utf-8-sig")
    except OSError as exc:
        raise argparse.ArgumentTypeError(f"cannot read {file}: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise argparse.ArgumentTypeError(f"{file} is not UTF-8: {exc}") from exc
    return text, str(file), context.pack(directory, context.ignored(directory, file))


def _stdin() -> str:
    if os.isatty(0):
        raise argparse.ArgumentTypeError("stdin is a terminal, not a Dockerfile: migrate build - < Dockerfile")
    try:
        return sys.stdin.buffer.read().decode("utf-8-sig")
    except UnicodeDecodeError as exc:
        raise argparse.ArgumentTypeError("stdin holds no Dockerfile: it is not UTF-8") from exc


def _nothing() -> Iterator[bytes]:
    yield bytes(1024)  # a tar of no files


def _build_args(texts: list[str]) -> dict[str, str]:
    found = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not name:
            raise argparse.ArgumentTypeError(f"--build-arg {text!r} is not KEY=VALUE")
        if equals:
            found[name] = value
        elif name in os.environ:
            found[name] = os.environ[name]
    return found


def _secret(text: str) -> tuple[str, bytes]:
    """Its id and contents."""
    fields = dict(part.partition("=")[::2] for part in text.split(","))
    name = fields.get("id", "")
    source = fields.get("src") or fields.get("source")
    variable = fields.get("env") or (name if not source and name in os.environ else "")
    if not name or unknown(fields):
        raise argparse.ArgumentTypeError(f"--secret takes id=NAME,src=FILE or id=NAME,env=VARIABLE, not {text!r}")
    try:
        if variable:
            return name, os.environb[variable.encode()]
        return name, Path(source or name).read_bytes()
    except KeyError as exc:
        raise argparse.ArgumentTypeError(f"--secret {text}: there is no variable {variable}") from exc
    except OSError as exc:
        raise argparse.ArgumentTypeError(f"--secret {text}: cannot read {source or name}: {exc.strerror}") from exc


def unknown(fields: dict[str, str]) -> bool:
    """Whether a secret says something that we do not know."""
    return bool(set(fields) - {"id", "src", "source", "env", "type"}) or fields.get("type", "file") not in (
        "file",
        "env",
    )
