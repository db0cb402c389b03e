"""`migrate start`, `stop`, `restart`, `kill`, `rm`, `wait`: one call for each container; goes on after an error and reports each."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TYPE_CHECKING

from migrate.cli import failures, upkeep, values
from migrate.cli.parsers import command

if TYPE_CHECKING:
    from migrate.cli.parsers import Subparsers
    from migrate.client import Client


def add_parser(subparsers: Subparsers) -> None:
    start = command(
        subparsers,
        "start",
        help="start created or exited containers",
        examples="migrate start web1 web2\nmigrate start -ai shell1",
    )
    start.add_argument("-a", "--attach", action="store_true", help="show what it writes, and end with its exit code")
    start.add_argument("-i", "--interactive", action="store_true", help="pass stdin on, too (with -a)")
    upkeep.add_attachment(start)
    stop = command(
        subparsers,
        "stop",
        help="stop running containers: the stop signal, then SIGKILL",
        examples="migrate stop web1\nmigrate stop -t 30 -s SIGINT web1 web2",
    )
    restart = command(
        subparsers,
        "restart",
        help="stop containers, where they run, and start them again",
        examples="migrate restart web1\nmigrate restart -t 30 -s SIGINT web1 web2",
    )
    for parser in (stop, restart):
        parser.add_argument(
            "-t",
            "--time",
            "--timeout",
            type=values.duration,
            default=None,
            metavar="SECONDS",
            help="time before SIGKILL (default: the container's)",
        )
        parser.add_argument(
            "-s", "--signal", type=values.signal, default=None, help="signal (default: the container's)"
        )
    kill = command(
        subparsers, "kill", help="send a signal to containers", examples="migrate kill web1\nmigrate kill -s HUP web1"
    )
    kill.add_argument("-s", "--signal", type=values.signal, default="SIGKILL", help="signal (default: SIGKILL)")
    remove = command(
        subparsers, "rm", help="remove containers", examples="migrate rm web1\nmigrate rm -f $(migrate ps -aq)"
    )
    remove.add_argument("-f", "--force", action="store_true", help="kill running containers first")
    remove.add_argument("-v", "--volumes", action="store_true", help="remove their anonymous volumes too")
    wait = command(
        subparsers,
        "wait",
        help="wait until containers have exited and print their exit codes",
        examples="migrate wait job1",
    )
    for parser in (start, stop, restart, kill, remove, wait):
        parser.add_argument("containers", metavar="CONTAINER", nargs="+", help="name, id or the beginning of an id")


def run(args: argparse.Namespace) -> int:
    from migrate.client import Client
    from migrate.errors import MigrateError, NotFound

    status = 0
    if args.command == "start" and (args.attach or args.interactive):
        return _attached(args)
    with Client(args.coordinator) as client:
        action = _action(client, args)
        for name in args.containers:
            try:
                print(action(name), flush=True)
            except NotFound as exc:
                failure = failures.report(exc, command=args.command)
                if (
                    args.command != "rm" or not args.force
                ):  # as Docker: with -f what is not there is said, and no failure
                    status = failure
            except MigrateError as exc:
                status = failures.report(exc, command=args.command)
    return status


def _attached(args: argparse.Namespace) -> int:
    from migrate.cli import terminal
    from migrate.client import Client
    from migrate.errors import InvalidArgument

    if len(args.containers) != 1:
        raise InvalidArgument("only one container can be attached to", hint="migrate start -a CONTAINER")
    with Client(args.coordinator) as client:
        container = client.inspect(args.containers[0])
        interactive = args.interactive and container.stdin_open
        if container.tty and interactive:
            terminal.need_terminal()
        return terminal.start_attached(
            client, container, interactive=interactive, detach_keys=args.detach_keys, sig_proxy=args.sig_proxy
        )


def _action(client: Client, args: argparse.Namespace) -> Callable[[str], str]:
    """What to do with one container; returns the line to print."""
    from migrate.errors import WrongState

    def start(name: str) -> str:
        try:
            client.start(name)
        except WrongState:  # one that runs already is what was asked for, as with Docker
            if client.inspect(name).state != "running":
                raise
        return name

    def stop(name: str) -> str:
        client.stop(name, timeout_s=args.time, signal=args.signal or "")
        return name

    def restart(name: str) -> str:
        client.restart(name, timeout_s=args.time, signal=args.signal or "")
        return name

    def kill(name: str) -> str:
        client.kill(name, signal=args.signal)
        return name

    def remove(name: str) -> str:
        client.remove(name, force=args.force, volumes=args.volumes)
        return name

    def wait(name: str) -> str:
        return str(client.wait(name).exit_code)

    return {"start": start, "stop": stop, "restart": restart, "kill": kill, "rm": remove, "wait": wait}[args.command]
