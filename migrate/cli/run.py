"""`migrate run` and `migrate create`."""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import shlex
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from migrate.cli import inside, limits, mounts, network, placing, refused, security, upkeep, values
from migrate.cli.parsers import command, rest

if TYPE_CHECKING:
    from migrate.cli.parsers import Subparsers
    from migrate.client import Client
    from migrate.records import Container, Mount

RUN = """
migrate run -d --name web1 --host host1 redis
migrate run -it --rm --host host1 debian bash
migrate run -d --name web1 -p 8080:80 -p 127.0.0.1:5353:53/udp app
migrate run -d --name db1 -v data:/var/lib/db -v /srv/conf:/etc/db:ro --read-only --tmpfs /run app
migrate run -d --rm --name job1 --host host1 app /bin/job
migrate run -d --restart unless-stopped --health-cmd "curl -f http://localhost/" --host host1 app
migrate run -d --constraint disk==ssd --anti-affinity app=web --label app=web --explain app
migrate run -d --secret id=token,src=$HOME/.token --tz Europe/Berlin --group-add audio app
migrate run -d -m 512m --cpus 1.5 -e MODE=prod --label tier=web app /bin/server --port 80
"""
CREATE = """
migrate create --name web1 --host host1 redis
migrate start web1
"""


def add_parser(subparsers: Subparsers) -> None:
    run_ = command(
        subparsers,
        "run",
        help="create a container and start it",
        usage="migrate run [OPTIONS] IMAGE [COMMAND...]",
        examples=RUN,
        short_help=False,
    )
    run_.add_argument("-d", "--detach", action="store_true", help="print the id and return; the container runs on")
    upkeep.add_attachment(run_)
    run_.add_argument(
        "-a",
        "--attach",
        action="append",
        default=[],
        type=stream,
        metavar="STREAM",
        help="only stdin, stdout or stderr (default: all); repeatable",
    )
    run_.add_argument("--rm", action="store_true", help="remove the container when it has exited")
    create = command(
        subparsers,
        "create",
        help="create a container without starting it",
        usage="migrate create [OPTIONS] IMAGE [COMMAND...]",
        examples=CREATE,
        short_help=False,
    )
    for parser in (run_, create):
        parser.add_argument("--help", action="help", help="show this help message and exit")
        _options(parser)


def _options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("-i", "--interactive", action="store_true", help="keep stdin open")
    add("-t", "--tty", action="store_true", help="give the main process a terminal")
    add("--name", default="", help="name, unique in the fleet (default: made up)")
    add("--host", default="", help="host to run on (default: the best that has the image)")
    add("-e", "--env", action="append", default=[], metavar="KEY[=VALUE]", help="environment variable; repeatable")
    add("--env-file", action="append", default=[], metavar="FILE", help="file of KEY=VALUE lines; repeatable")
    add("-w", "--workdir", default="", help="working directory in the container")
    add("-u", "--user", default="", metavar="USER[:GROUP]", help="name or id of the user")
    add("-h", "--hostname", default="", help="host name in the container (default: its short id)")
    add("--entrypoint", default=None, help='replaces the entrypoint of the image; "" clears it')
    add("--ip", type=values.address, default=None, metavar="ADDRESS", help="address (default: allocated)")
    add("--mac-address", type=values.mac, default=None, metavar="MAC", help="MAC address (default: from the address)")
    add("-l", "--label", action="append", default=[], metavar="KEY=VALUE", help="label; repeatable")
    add("--label-file", action="append", default=[], metavar="FILE", help="file of KEY=VALUE lines; repeatable")
    add(
        "--volumes-from",
        action="append",
        default=[],
        metavar="CONTAINER[:ro]",
        help="the volumes and bind mounts of another container too; repeatable",
    )
    add("--replace", action="store_true", help="remove the container that has the --name, first")
    add("--cap-add", action="append", default=[], type=values.capability, metavar="CAP", help="add a capability")
    add(
        "--cap-drop",
        action="append",
        default=[],
        type=values.capability,
        metavar="CAP",
        help="drop a capability, or ALL",
    )
    add(
        "--stop-signal",
        type=values.signal,
        default=None,
        metavar="SIGNAL",
        help="signal of `migrate stop` (default: the image's)",
    )
    add(
        "--stop-timeout", type=values.duration, default=0.0, metavar="SECONDS", help="time before SIGKILL (default: 10)"
    )
    placing.add_options(parser)
    limits.add_options(parser, fixed=True)
    security.add_options(parser)
    upkeep.add_options(parser)
    network.add_options(parser)
    mounts.add_options(parser)
    inside.add_options(parser)
    refused.add_options(parser)
    add("image", metavar="IMAGE")
    add("argv", metavar="COMMAND", nargs=argparse.REMAINDER, help="replaces the command of the image")


def run(args: argparse.Namespace) -> int:
    from migrate.cli import terminal
    from migrate.client import Client, Run

    try:
        environment = values.environment(args.env, args.env_file)
        life = upkeep.fields(args)
        mounted = mounts.fields(args)
        found_inside = inside.fields(args)
        labels = values.labels([*values.lines(args.label_file), *args.label])
    except argparse.ArgumentTypeError as exc:
        print(f"error: {exc}", file=sys.stderr)
        return 2 if args.command == "create" else 125
    wanted = Run(
        image=args.image,
        argv=tuple(rest(args.argv)),
        entrypoint=None if args.entrypoint is None else tuple(shlex.split(args.entrypoint)),
        name=args.name,
        host=args.host,
        env=tuple(environment),
        cwd=args.workdir,
        user=args.user,
        hostname=args.hostname,
        **limits.fields(args),
        **network.fields(args),
        **security.fields(args),
        **life,
        **mounted,
        **found_inside,
        tty=args.tty,
        stdin_open=args.interactive,
        labels={**labels, **placing.labels(args)},
        address=args.ip or "",
        mac=args.mac_address or "",
        cap_add=tuple(args.cap_add),
        cap_drop=tuple(args.cap_drop),
        stop_signal=args.stop_signal or "",
        stop_timeout_s=args.stop_timeout,
        remove_on_exit=args.command == "run" and args.rm,
    )
    if args.command == "run" and args.detach and args.attach:
        print("error: --attach and --detach say different things\nhint: leave one of them out", file=sys.stderr)
        return 125
    if args.command == "run" and not args.detach and args.tty and args.interactive:
        terminal.need_terminal()
    for line in security.warnings(wanted.isolation):
        print(f"warning: {line}", file=sys.stderr)
    with Client(args.coordinator) as client, upkeep.id_file(args.cidfile) as keep:
        if args.volumes_from:
            inherited = _inherited(client, args.volumes_from, {one.target for one in wanted.mounts})
            wanted = dataclasses.replace(wanted, mounts=(*inherited, *wanted.mounts))
        if args.explain and not wanted.host:
            ranking = client.place_run(wanted)
            print(placing.explained(ranking), file=sys.stderr)
            wanted = dataclasses.replace(wanted, host=ranking.best)

        def make(method: Callable[[Run], Container]) -> Container:
            if args.replace:
                _remove_old(client, args.name)
            return keep(upkeep.with_image(client, wanted, args.pull, method, quiet=args.quiet))

        if args.command == "create":
            print(make(client.create).id)
            return 0
        if args.detach:
            print(make(client.run).id)
            return 0
        return terminal.run_attached(
            client,
            make(client.create),
            detach_keys=args.detach_keys,
            sig_proxy=args.sig_proxy,
            streams=frozenset(args.attach) or terminal.STREAMS,
        )


def stream(text: str) -> str:
    """Of a main process's three; Docker takes any case."""
    if text.lower() not in ("stdin", "stdout", "stderr"):
        raise argparse.ArgumentTypeError(f"{text!r} is not stdin, stdout or stderr")
    return text.lower()


def _inherited(client: Client, others: Sequence[str], taken: set[str]) -> list[Mount]:
    """What those containers have mounted, but for `taken` targets. Anonymous volumes stay theirs. Raises NotFound."""
    found: dict[str, Mount] = {}
    for text in others:
        name, _, how = text.partition(":")
        for one in client.inspect(name).mounts:
            if one.kind in ("bind", "volume") and one.target not in taken:
                read_only = one.read_only or how == "ro"
                found[one.target] = dataclasses.replace(one, anonymous=False, read_only=read_only)
    return list(found.values())


def _remove_old(client: Client, name: str) -> None:
    from migrate.errors import InvalidArgument, NotFound

    if not name:
        raise InvalidArgument("--replace needs a --name: that of the container to replace")
    with contextlib.suppress(NotFound):
        client.remove(client.inspect(name).id, force=True, volumes=True)
