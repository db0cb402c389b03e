"""`migrate exec` and `migrate attach`."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from migrate.cli import upkeep, values
from migrate.cli.parsers import command, rest

if TYPE_CHECKING:
    from migrate.cli.parsers import Subparsers
    from migrate.client import Client


def add_parser(subparsers: Subparsers) -> None:
    parser = command(
        subparsers,
        "exec",
        help="run a command in a running container",
        usage="migrate exec [OPTIONS] CONTAINER COMMAND...",
        examples="""
migrate exec web1 ps ax
migrate exec -it web1 bash
tar c . | migrate exec -i web1 tar x -C /srv
""",
    )
    parser.add_argument("-i", "--interactive", action="store_true", help="pass stdin on")
    parser.add_argument("-t", "--tty", action="store_true", help="give the command a terminal")
    parser.add_argument("-u", "--user", default="", metavar="USER[:GROUP]", help="user (default: the container's)")
    parser.add_argument("-w", "--workdir", default="", help="working directory (default: the container's)")
    parser.add_argument("-d", "--detach", action="store_true", help="start the command and return; it runs on")
    parser.add_argument(
        "--privileged",
        action="store_true",
        help="every capability, within the container's own users; its seccomp filter and devices stay",
    )
    parser.add_argument("--env-file", action="append", default=[], metavar="FILE", help="file of KEY=VALUE lines")
    parser.add_argument(
        "--detach-keys",
        type=values.keys,
        default=values.keys("ctrl-p,ctrl-q"),
        metavar="KEYS",
        help="keys that let go of the command (default: ctrl-p,ctrl-q)",
    )
    parser.add_argument("-e", "--env", action="append", default=[], metavar="KEY[=VALUE]", help="repeatable")
    parser.add_argument("container", metavar="CONTAINER")
    parser.add_argument("argv", metavar="COMMAND", nargs=argparse.REMAINDER)
    attach = command(
        subparsers,
        "attach",
        help="connect the terminal to a container's main process",
        examples="migrate attach job1\nmigrate attach --no-stdin web1\n(with a terminal: ctrl-p ctrl-q lets go)",
    )
    upkeep.add_attachment(attach)
    attach.add_argument("--no-stdin", action="store_true", help="only show what it writes")
    attach.add_argument("container", metavar="CONTAINER")


def run(args: argparse.Namespace) -> int:
    from migrate.cli import terminal
    from migrate.client import Client

    with Client(args.coordinator) as client:
        if args.command == "attach":
            return _attach(client, args)
        argv = rest(args.argv)
        if not argv:
            print("error: exec needs a command\nhint: migrate exec -it CONTAINER sh", file=sys.stderr)
            return 125
        try:
            environment = values.environment(args.env, args.env_file)
        except argparse.ArgumentTypeError as exc:
            print(f"error: {exc}", file=sys.stderr)
            return 125
        if args.tty and args.interactive and not args.detach:
            terminal.need_terminal()
        rows, columns = terminal.window_size() if args.tty else (0, 0)
        session = client.exec(
            args.container,
            argv,
            env=environment,
            cwd=args.workdir,
            user=args.user,
            tty=args.tty,
            stdin=args.interactive,
            rows=rows,
            columns=columns,
            detach=args.detach,
            privileged=args.privileged,
        )
        try:
            return terminal.converse(
                session, interactive=args.interactive and not args.detach, is_tty=args.tty, detach_keys=args.detach_keys
            )
        except terminal.Detached:
            print("\r\ndetached", file=sys.stderr)
            return 0


def _attach(client: Client, args: argparse.Namespace) -> int:
    from migrate.cli import terminal

    container = client.inspect(args.container)
    interactive = container.stdin_open and not args.no_stdin
    if container.tty and interactive:
        terminal.need_terminal()
    rows, columns = terminal.window_size() if container.tty else (0, 0)
    session = client.attach(container.id, stdin=interactive, tty=container.tty, rows=rows, columns=columns)
    try:
        return terminal.converse(
            session,
            interactive=interactive,
            is_tty=container.tty,
            detach_keys=args.detach_keys,
            sig_proxy=args.sig_proxy,
        )
    except terminal.Detached:
        print(f"\r\ndetached; {container.name} runs on", file=sys.stderr)
        return 0
