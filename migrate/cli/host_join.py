"""`migrate host add|rm|upgrade|rotate-keys`: how hosts come, go, and are renewed. docs/hosts.md"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from migrate.cli import values
from migrate.cli.parsers import command

if TYPE_CHECKING:
    from migrate.cli.parsers import Subparsers
    from migrate.client import Client
    from migrate.join.adding import Adding
    from migrate.join.install import Say
    from migrate.records import Host

VERBS = ("add", "rm", "upgrade", "rotate-keys")

ADD = """
migrate host add host2 root@10.0.0.2
migrate host add host2 root@10.0.0.2 --label disk=ssd --label zone=a
migrate host add host2 root@10.0.0.2 --fingerprint SHA256:2tEX... --identity ~/.ssh/fleet
migrate host add host2 root@10.0.0.2 --dry-run
"""


def add_parsers(verbs: Subparsers) -> None:
    join = command(
        verbs,
        "add",
        help="make a machine a host of the fleet: install the agent over ssh, start it, try its tunnels; said again, it mends what differs",
        examples=ADD,
    )
    join.add_argument("name", metavar="NAME", help="of the host in the fleet")
    join.add_argument("login", metavar="LOGIN", help="how to come to it as root: root@ADDRESS")
    join.add_argument("--label", action="append", default=[], metavar="KEY=VALUE", help="label the host; repeatable")
    join.add_argument(
        "--fingerprint", default="", metavar="SHA256:...", help="of its host key; else it is shown and asked for"
    )
    join.add_argument("--address", default="", help="at which the fleet reaches its sshd (default: that of LOGIN)")
    join.add_argument(
        "--uplink", default="", metavar="CARD", help="network card for the bridge (default: the one with ADDRESS)"
    )
    join.add_argument(
        "--bridge", default="", metavar="NAME", help="of the containers (default: the one with ADDRESS, or migrate0)"
    )
    join.add_argument(
        "--cgroup", default="", metavar="PATH", help="of the containers, below the root of each cgroup hierarchy"
    )
    _ssh(join)
    join.add_argument(
        "--dry-run", action="store_true", help="look at the machine, say what would be done, change nothing"
    )
    join.add_argument("-y", "--yes", action="store_true", help="pin whatever host key a new machine shows")
    leave = command(
        verbs,
        "rm",
        help="take a host out of the fleet: it trusts the fleet no more; refused while it has containers",
        examples="migrate host rm host2\nmigrate host rm host2 --purge\nmigrate host rm host2 --force",
    )
    leave.add_argument("hosts", metavar="HOST", nargs="+")
    leave.add_argument(
        "--force", action="store_true", help="also with containers: they are forgotten, and run on there unseen"
    )
    leave.add_argument(
        "--purge", action="store_true", help="then remove the agent and all of its files from the machine, over ssh"
    )
    _ssh(leave)
    upgrade = command(
        verbs,
        "upgrade",
        help="install this version on hosts, one after the other; their containers keep running",
        examples="migrate host upgrade host2\nmigrate host upgrade --all\nmigrate host upgrade host2 --login root@10.0.0.2",
    )
    upgrade.add_argument("hosts", metavar="HOST", nargs="*")
    upgrade.add_argument("--all", action="store_true", help="every host; the first that fails ends it")
    upgrade.add_argument("--login", default="", metavar="LOGIN", help="other than the one it was added with")
    _ssh(upgrade)
    command(
        verbs,
        "rotate-keys",
        help="give the fleet another ssh authority, on every host; said again after a failure, it goes on",
        examples="migrate host rotate-keys",
    )


def _ssh(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--port", type=values.positive, default=0, metavar="N", help="of its sshd (default: 22)")
    parser.add_argument(
        "--identity",
        "-i",
        default="",
        metavar="FILE",
        help="private key to log in with (default: ssh-agent's, ~/.ssh/id_*)",
    )


def run(args: argparse.Namespace, client: Client) -> int:
    if args.action == "add":
        return _add(args, client)
    if args.action == "upgrade":
        return _upgrade(args, client)
    if args.action == "rm":
        return _leave(args, client)
    hosts, fingerprint = client.rotate_keys()
    print(
        f"{', '.join(hosts) or 'no host'} {'trust' if len(hosts) > 1 else 'trusts'} the new authority alone: {fingerprint}"
    )
    return 0


def _add(args: argparse.Namespace, client: Client) -> int:
    from migrate.join import adding as joining
    from migrate.tunnel import operator

    wrong = next((text for text in args.label if "=" not in text), "")
    if wrong:
        print(f"error: {wrong!r} is not KEY=VALUE\nhint: migrate host add --help", file=sys.stderr)
        return 2
    adding = joining.Adding(
        name=args.name,
        login=operator.parse_login(args.login, args.port),
        labels=values.labels(args.label),
        identity=_identity(args),
        fingerprint=args.fingerprint,
        address=args.address,
        bridge=args.bridge,
        uplink=args.uplink,
        cgroup=args.cgroup,
        known=next((one for one in client.hosts(facts=False) if one.name == args.name), None),
    )
    say = _teller(args.name)
    key = joining.host_key(operator, adding, lambda what: _confirm(what, yes=args.yes or args.dry_run), say)
    remote = operator.log_in(adding.login, host_key=key, identity=adding.identity)
    try:
        found = joining.examine(remote, adding)
        wanted, lines = joining.plan(found, adding, client)
        for line in lines if args.dry_run else ():
            say(line)
        if args.dry_run:
            print("nothing was changed (--dry-run)")
            return 0
        joining.put(remote, found, wanted, say)
        joined = joining.join(client, remote, adding, wanted, say)
    finally:
        remote.close()
    print(
        f"{args.name} {'is a member already, and as it should be' if joined.was_there else 'is a member of the fleet'}"
    )
    return 0


def _upgrade(args: argparse.Namespace, client: Client) -> int:
    known = {host.name: host for host in client.hosts(facts=False)}
    names = list(known) if args.all else args.hosts
    if bool(args.hosts) == args.all or (args.login and len(names) != 1):
        print(
            "error: name hosts, or give --all; --login is for one host\nhint: migrate host upgrade --help",
            file=sys.stderr,
        )
        return 2
    for name in names:
        _upgrade_one(args, client, known[name] if name in known else client.inspect_host(name))
    return 0


def _upgrade_one(args: argparse.Namespace, client: Client, host: Host) -> None:
    """One that is current is left alone, but for what the set-up finds missing."""
    from migrate.join import adding as joining
    from migrate.tunnel import operator

    login = operator.parse_login(args.login or host.login or f"root@{host.address}", args.port)
    adding = joining.Adding(name=host.name, login=login, identity=_identity(args), address=host.address, known=host)
    say = _teller(host.name)
    key = joining.host_key(operator, adding, lambda _what: False, say)
    remote = operator.log_in(login, host_key=key, identity=adding.identity)
    try:
        found = joining.examine(remote, adding)
        wanted, _ = joining.plan(found, adding, client)
        release = joining.put(remote, found, wanted, say)
    finally:
        remote.close()
    joining.wait_for(client, host.name)
    print(f"{host.name} runs {release}")


def _leave(args: argparse.Namespace, client: Client) -> int:
    status = 0
    for name in args.hosts:
        host = client.inspect_host(name)
        if args.purge:  # first: a purge that fails can be said again of a member only
            client.cordon(name, reason="it leaves the fleet")
            if args.force and host.containers:
                # Purged, they could be neither seen nor ended.
                for container in client.containers(all=True, host=name):
                    client.remove(container.name, force=True)
                    print(f"{name}: removed {container.name}")
            _purge(args, host)
        left = client.leave_host(name, force=args.force)
        for container_name in left.forgotten:
            print(f"{name}: forgot {container_name}: it runs on there unseen")
        if left.still_trusts and not args.purge:
            print(f"{name}: it still trusts the fleet, for it could not be told: {left.still_trusts}", file=sys.stderr)
            print("hint: on that machine: rm /etc/migrate/ca.pub", file=sys.stderr)
            status = 1
        print(f"{name} has left the fleet")
    return status


def _purge(args: argparse.Namespace, host: Host) -> None:
    from migrate.join import adding as joining
    from migrate.join import install
    from migrate.tunnel import operator

    login = operator.parse_login(host.login or f"root@{host.address}", args.port)
    adding: Adding = joining.Adding(name=host.name, login=login, identity=_identity(args), known=host)
    say: Say = _teller(host.name)
    key = joining.host_key(operator, adding, lambda _what: False, say)
    remote = operator.log_in(login, host_key=key, identity=adding.identity)
    try:
        install.purge(remote, say)
    finally:
        remote.close()


def _identity(args: argparse.Namespace) -> Path | None:
    return Path(args.identity).expanduser() if args.identity else None


def _confirm(what: str, *, yes: bool) -> bool:
    if yes:
        print(what, flush=True)
        return True
    if not sys.stdin.isatty():
        return False
    return input(f"{what}\npin it? [y/N] ").strip().lower() in ("y", "yes")


def _teller(name: str) -> Say:
    return lambda text: print(f"{name}: {text}", flush=True)
