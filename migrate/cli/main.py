"""The entry point of `migrate`: finds the command, imports only its module, runs it, and reports what went wrong.

A command's module has `add_parser(subparsers)`, which adds one or several commands, and `run(args)`, which returns the
exit status.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from migrate.cli.parsers import Parser

# Before gRPC is imported: it tells of a coordinator that goes away by itself, in words of its own ("Got goaway [2] err=UNAVAILABLE").
os.environ.setdefault("GRPC_VERBOSITY", "ERROR")

# Command, its module, what it does. In this order in `migrate --help`.
GROUPS: tuple[tuple[str, tuple[tuple[str, str, str], ...]], ...] = (
    (
        "moving",
        (
            ("move", "move", "move a running container to another host"),
            ("check", "check", "say what speaks against a move, and how long it would take"),
            ("rehearse", "rehearse", "try a move with a copy of the container, and throw the copy away"),
            ("migrations", "migrations", "list moves; show one with its timeline"),
            ("watch", "migrations", "follow a move from its beginning"),
            ("cancel", "migrations", "stop a move before its pivot; the container stays where it is"),
            ("undo", "migrations", "bring a container back from where a move has taken it"),
            ("resume", "migrations", "go on with a move that waits for a host or for memory"),
            ("repair", "migrations", "finish or undo what a crash or an error left of a move"),
        ),
    ),
    (
        "containers",
        (
            ("run", "run", "create a container and start it"),
            ("create", "run", "create a container without starting it"),
            ("start", "lifecycle", "start created or exited containers"),
            ("stop", "lifecycle", "stop running containers"),
            ("restart", "lifecycle", "stop containers and start them again"),
            ("kill", "lifecycle", "send a signal to containers"),
            ("rm", "lifecycle", "remove containers"),
            ("prune", "prune", "remove containers that do not run, and images that nothing names"),
            ("container", "prune", "the verbs of containers, as Docker groups them; prune, exists"),
            ("wait", "lifecycle", "wait until containers have exited and print their exit codes"),
            ("pause", "pause", "stop all processes of containers where they are"),
            ("unpause", "pause", "let paused containers go on"),
            ("update", "update", "change the limits of containers while they run"),
            ("rename", "rename", "give a container another name"),
            ("ps", "ps", "list containers on all hosts"),
            ("events", "events", "follow what happens to containers, images and moves on all hosts"),
            ("stats", "stats", "show what containers use: processors, memory, network, disks, processes"),
            ("port", "network", "list the published ports of a container"),
            ("top", "top", "list the processes of a container"),
            ("logs", "logs", "print what a container wrote"),
            ("exec", "exec", "run a command in a running container"),
            ("attach", "exec", "connect the terminal to a container's main process"),
            ("cp", "cp", "copy files between a container and this machine"),
            ("diff", "diff", "list the files that a container has changed"),
            ("export", "export", "write all files of a container as a tar"),
            ("commit", "commit", "make an image of a container and its changes; or let a move that holds switch over"),
            ("rootfs", "rootfs", "print where a container's files are on its host"),
            ("inspect", "inspect", "print everything known about containers, as JSON"),
        ),
    ),
    (
        "images",
        (
            ("build", "build", "build an image from a Dockerfile"),
            ("image", "image", "import, list, inspect, tag, prune and remove images"),
            ("images", "image", "list images"),
            ("pull", "image", "get an image from a registry"),
            ("push", "image", "send an image to a registry"),
            ("login", "registry", "remember user and password of a registry"),
            ("logout", "registry", "forget them"),
            ("import", "image", "import a root file system from a tar"),
            ("load", "image", "load images from an archive"),
            ("save", "image", "save images to an archive"),
            ("history", "image", "show how an image was made"),
            ("tag", "image", "give an image another name"),
            ("rmi", "image", "remove images"),
        ),
    ),
    (
        "volumes",
        (("volume", "volume", "create, list, inspect, remove and prune volumes"),),
    ),
    (
        "networks",
        (("network", "networks", "list and inspect the networks that there are"),),
    ),
    (
        "fleet",
        (
            ("info", "system", "show the fleet as a whole: hosts, containers, images, versions"),
            ("system", "system", "info, df (what takes space) and prune"),
            ("evacuate", "evacuate", "take all containers of a host to others"),
            ("restore", "evacuate", "bring home what evacuations took away from a host"),
            ("evacuations", "evacuate", "list evacuations and restores; show, follow or cancel one"),
            ("rebalance", "rebalance", "move containers from fuller hosts to emptier ones"),
            ("policy", "policy", "say how containers with certain labels move, where nobody says it by hand"),
            (
                "schedule",
                "schedule",
                "empty hosts at their times; or the hosts of a group one after the other, with a hook",
            ),
            ("host", "hosts", "add hosts, look at them, label them, keep containers away from one, upgrade, remove"),
            ("fleet", "fleet", "write the fleet's hosts to a file, or take hosts in from one"),
            ("hosts", "hosts", "list hosts and what they can do (host ls)"),
            ("doctor", "doctor", "check what this machine lacks; or say why a move failed and what to do"),
            ("lab", "lab", "a small fleet of hosts on this machine, to try and test everything"),
            ("version", "version", "print the version of the client and the coordinator"),
            ("completion", "completion", "print the completion script of a shell"),
        ),
    ),
)
MODULES = {name: module for _, commands in GROUPS for name, module, _ in commands}
MODULES["__complete"] = "completion"  # what the completion scripts call

# `migrate container VERB`, as Docker groups them: what is not of the group itself is the command of that name.
CONTAINER_VERBS = {name: name for name, _, _ in GROUPS[1][1] if name not in ("container", "prune")}
CONTAINER_VERBS |= {"ls": "ps", "list": "ps"}
GROUPED = {
    "container": CONTAINER_VERBS,
    "image": {"build": "build", "list": "images"},
    "system": {"events": "events"},
}

OVERVIEW = """Move running containers between Linux hosts: memory, open files and TCP connections go along.

usage: migrate [--coordinator SOCKET] COMMAND ...
{commands}

options:
  --coordinator SOCKET   the coordinator's socket (default: $MIGRATE_COORDINATOR, then
                         /run/migrate/coordinator.sock, then the lab's)
  --version              print the version
  -h, --help             this page; `migrate COMMAND --help` for one command

examples:
  migrate lab up                                  a fleet on this machine
  migrate run -d --name web1 --host host1 base sleep 1d
  migrate move web1 --to host2
"""


def overview() -> str:
    """What `migrate --help` prints."""
    lines: list[str] = []
    for title, commands in GROUPS:
        lines += ["", f"{title}:"]
        lines += [f"  {name:<12} {text}" for name, _, text in commands]
    return OVERVIEW.format(commands="\n".join(lines))


def split(argv: Sequence[str]) -> tuple[str | None, str]:
    """The value of --coordinator and the name of the command, or "" where there is none before the end."""
    coordinator: str | None = None
    words = iter(argv)
    for word in words:
        if word == "--coordinator":
            coordinator = next(words, None)
        elif word.startswith("--coordinator="):
            coordinator = word.partition("=")[2]
        elif not word.startswith("-"):
            return coordinator, word
    return coordinator, ""


def ungrouped(argv: list[str], name: str) -> tuple[list[str], str]:
    """`container stop web1` is `stop web1`, `image build .` is `build .`; anything else stays as it is."""
    place = argv.index(name) if name else 0
    verb = argv[place + 1] if name in GROUPED and place + 1 < len(argv) else ""
    if verb not in GROUPED.get(name, ()):
        return argv, name
    name = GROUPED[name][verb]
    kind = ["--type", "container"] if name == "inspect" else []
    return [*argv[:place], name, *kind, *argv[place + 2 :]], name


def command() -> NoReturn:
    """What `migrate` runs: `main`, then the end of this process, without Python's own tidying up.

    While the interpreter ends it kills gRPC's threads where they stand. One that holds the lock of a call then keeps it, and the
    call's destructor waits for it in the main thread, for ever (seen once: `migrate move` that had printed its error and did not
    end; grpcio 1.85). It also takes a tenth of the time of `migrate ps`. What must be put back is put back before `main` returns.
    """
    try:
        status = main()
    except SystemExit as exc:  # of argparse: an exit status, its text is printed
        status = exc.code if isinstance(exc.code, int) else 0
    with contextlib.suppress(OSError):  # nobody reads any more: main has said so where it matters
        sys.stdout.flush()
    with contextlib.suppress(OSError):
        sys.stderr.flush()
    os._exit(status)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line; returns the exit status. Never raises but SystemExit (from --help and wrong arguments)."""
    argv = list(sys.argv[1:] if argv is None else argv)
    coordinator, name = split(argv)
    argv, name = ungrouped(argv, name)
    options = argv[: argv.index(name)] if name else argv
    if "--version" in options:
        name, argv = "version", ["version", "--client"]
    if not name or "-h" in options or "--help" in options:
        print(overview(), end="")
        return 0 if argv else 2
    if name not in MODULES:
        import difflib  # here: nobody else needs it

        close = difflib.get_close_matches(name, MODULES, n=3)
        hint = f"did you mean: {', '.join(close)}" if close else "migrate --help lists the commands"
        print(f"error: migrate has no command {name!r}\nhint: {hint}", file=sys.stderr)
        return 2
    from migrate.cli import deferred  # here: help pages need none of what it defers

    deferred.install()
    try:
        module = importlib.import_module(f"migrate.cli.{MODULES[name]}")
        parser = Parser(prog="migrate", add_help=False)
        parser.add_argument("--coordinator", metavar="SOCKET", default=None)
        subparsers = parser.add_subparsers(dest="command", required=True, prog="migrate", parser_class=Parser)
        module.add_parser(subparsers)
        args, unknown = parser.parse_known_args(argv)
        if unknown:  # said by the command that does not know them, with its own help and exit status
            subparsers.choices[name].error(f"unrecognized arguments: {' '.join(unknown)}")
        args.coordinator = coordinator
        status: int = module.run(args)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return 130
    except BrokenPipeError:
        # `migrate ps | head`: nobody reads any more. Point stdout elsewhere, or Python complains while it exits.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except Exception as exc:  # noqa: BLE001  # the one place where an error becomes text and an exit status
        from migrate.cli import failures  # here: help pages need none of what it imports

        return failures.report(exc, command=name)
