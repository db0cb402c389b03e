"""Options of `run` and `create` about a container's life: restart policy, health check, init, log, and how it is made."""

from __future__ import annotations

import argparse
import dataclasses
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from migrate.cli import values

if TYPE_CHECKING:
    from migrate.client import Client
    from migrate.records import Container, RestartPolicy, Run

POLICIES = ("no", "on-failure", "always", "unless-stopped")
_POLICY = re.compile(r"(no|on-failure|always|unless-stopped)(?::(\d+))?")


def add_options(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add_restart(parser)
    add("--init", action="store_true", help="a small init is process 1: it passes signals on and reaps orphans")
    add("-q", "--quiet", action="store_true", help="no progress of a pull")
    add("--log-driver", choices=("local", "json-file"), default="local", help="accepted: there is one, of local files")
    add("--cgroupns", choices=("private",), default="private", help="accepted: every container has its own")
    add("--log-opt", action="append", default=[], metavar="NAME=VALUE", help="max-size=10m, max-file=3; repeatable")
    add(
        "--health-cmd",
        default="",
        metavar="COMMAND",
        help="run in the container, by its shell, to see whether it is well",
    )
    for name, text in (
        ("interval", "time between two checks (default: 30s)"),
        ("timeout", "time after which a check counts as failed (default: 30s)"),
        ("start-period", "time in which failed checks do not count (default: 0s)"),
        ("start-interval", "time between two checks in that time (default: as --health-interval)"),
    ):
        add(f"--health-{name}", type=values.duration, default=0.0, metavar="TIME", help=text)
    add(
        "--health-retries",
        type=values.positive,
        default=0,
        metavar="N",
        help="failures in a row that count (default: 3)",
    )
    add("--no-healthcheck", action="store_true", help="no checks, whatever the image says")
    add("--cidfile", default="", metavar="FILE", help="write the id to this new file")
    add(
        "--pull",
        choices=("missing", "always", "never"),
        default="missing",
        help="get the image from its registry where no host has it (default), always, or never",
    )


def add_restart(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--restart",
        type=policy,
        default=None,
        metavar="POLICY",
        help="what to do when it exits: no, on-failure[:N], always, unless-stopped",
    )


def policy(text: str) -> str:
    """Checked, as typed."""
    found = _POLICY.fullmatch(text)
    if not found or (found[2] and found[1] != "on-failure"):
        raise argparse.ArgumentTypeError(f"{text!r} is no restart policy: {', '.join(POLICIES)}, on-failure:N")
    return text


def restart_policy(text: str) -> RestartPolicy:
    from migrate.records import RestartPolicy

    name, _, retries = text.partition(":")
    return RestartPolicy(name=name, max_retries=int(retries or 0))


def fields(args: argparse.Namespace) -> dict[str, Any]:
    """Fields of records.Run. Raises argparse.ArgumentTypeError."""
    from migrate.records import Healthcheck

    checks = (
        args.health_cmd,
        args.health_interval,
        args.health_timeout,
        args.health_start_period,
        args.health_start_interval,
        args.health_retries,
    )
    if args.no_healthcheck and any(checks):
        raise argparse.ArgumentTypeError("--no-healthcheck and --health-* say different things")
    if getattr(args, "rm", False) and args.restart not in (None, "no"):
        raise argparse.ArgumentTypeError("--rm and --restart say different things: it is removed, or it comes back")
    test = ("NONE",) if args.no_healthcheck else ("CMD-SHELL", args.health_cmd) if args.health_cmd else ()
    return {
        "restart": restart_policy(args.restart or ""),
        "init": args.init,
        "log_options": log_options(args.log_opt),
        "health": Healthcheck(
            test=test,
            interval_ns=int(args.health_interval * 1e9),
            timeout_ns=int(args.health_timeout * 1e9),
            start_period_ns=int(args.health_start_period * 1e9),
            retries=args.health_retries,
            start_interval_ns=int(args.health_start_interval * 1e9),
        ),
    }


def log_options(given: Iterable[str]) -> dict[str, str]:
    """{"max-size": "10m"} of "max-size=10m"."""
    found = {}
    for text in given:
        name, _, value = text.partition("=")
        if name not in ("max-size", "max-file") or not value:
            raise argparse.ArgumentTypeError(f"--log-opt {text!r}: options are max-size=10m and max-file=3")
        found[name] = value
    return found


def add_attachment(parser: argparse.ArgumentParser) -> None:
    """Options of what stays connected to a container's main process."""
    parser.add_argument(
        "--detach-keys",
        type=values.keys,
        default=values.keys("ctrl-p,ctrl-q"),
        metavar="KEYS",
        help="keys that let go of the container (default: ctrl-p,ctrl-q)",
    )
    parser.add_argument(
        "--sig-proxy",
        nargs="?",
        type=values.boolean,
        const=True,
        default=True,
        metavar="BOOL",
        help="pass signals on to the process (default: true)",
    )


@contextmanager
def id_file(name: str) -> Iterator[Callable[[Container], Container]]:
    """--cidfile: refused where it exists; what is yielded writes the id into it; gone where nothing was made. InvalidArgument."""
    from migrate.errors import InvalidArgument

    written = False
    if name:
        try:
            os.close(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))
        except FileExistsError:
            hint = "delete it, or name another: the container of its id may still be there"
            raise InvalidArgument(f"the file of --cidfile exists already: {name}", hint=hint) from None
        except OSError as exc:
            raise InvalidArgument(f"--cidfile: cannot write {name}: {exc.strerror}") from exc

    def keep(container: Container) -> Container:
        nonlocal written
        if name:
            Path(name).write_text(container.id)
        written = True
        return container

    try:
        yield keep
    finally:
        if name and not written:
            Path(name).unlink(missing_ok=True)


def with_image(
    client: Client, wanted: Run, pull: str, make: Callable[[Run], Container], *, quiet: bool = False
) -> Container:
    """`make(wanted)`, with the image pulled first if need be, to the host that is named or else the one that would be chosen if
    it had the image. Where it cannot be pulled: the error that it is not here.
    """
    from migrate.errors import MigrateError, NotFound

    if pull == "always":
        return make(_pull(client, wanted, quiet=quiet))
    try:
        return make(wanted)
    except NotFound as exc:
        if pull == "never" or not exc.code.startswith("image."):
            raise
        if not quiet:
            print(f"Unable to find image {wanted.image!r} locally: pulling it", file=sys.stderr)
        try:
            wanted = _pull(client, wanted, quiet=quiet)
        except MigrateError as why:
            exc.detail = "\n".join(filter(None, (f"it cannot be pulled: {why.message}", why.detail)))
            raise exc from why
        return make(wanted)


def _pull(client: Client, wanted: Run, *, quiet: bool) -> Run:
    """`wanted` with the host that has the image now. Raises what choosing and pulling raise."""
    from migrate.cli import image_progress, registry
    from migrate.errors import WrongState
    from migrate.records import ImageProgress

    if not wanted.host:
        ranking = client.place_run(wanted, will_pull=True)
        if not ranking.best:
            reasons = "\n".join(f"{one.host}: {'; '.join(one.refusals)}" for one in ranking.hosts)
            raise WrongState("no host can take the container", detail=reasons, hint="migrate host ls")
        wanted = dataclasses.replace(wanted, host=ranking.best)
        if not quiet:
            print(f"to {wanted.host}", file=sys.stderr)
    options = argparse.Namespace(authfile="", tls_verify=True, cert="")
    access = registry.access(options, registry.registry_of(wanted.image))
    view = image_progress.Layers(quiet=quiet)  # on stderr: stdout is the id's
    try:
        for event in client.pull_image(wanted.image, access=access, host=wanted.host):
            if isinstance(event, ImageProgress):
                view.show(event)
    finally:
        view.finish()
    return wanted
