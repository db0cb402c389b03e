"""`migrate login`, `logout`, and what pull and push need to reach a registry.

Credentials are kept on this machine only, in a file of this user (mode 0600, the format of containers-auth.json(5)). A pull
or push sends those of its one registry to the host for that one call.
"""

from __future__ import annotations

import argparse
import base64
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from migrate.cli.parsers import command
from migrate.errors import InvalidArgument
from migrate.records import RegistryAccess

if TYPE_CHECKING:
    from migrate.cli.parsers import Subparsers

DOCKER = "docker.io"
LOGIN = """
migrate login registry.example:5000 -u me           asks for the password
migrate login registry.example -u me --password-stdin < token
migrate login 127.0.0.1:5000 -u me --tls-verify=false
"""
LOGOUT = """
migrate logout registry.example:5000
"""


def add_parser(subparsers: Subparsers) -> None:
    login = command(subparsers, "login", help="remember user and password of a registry", examples=LOGIN)
    login.add_argument("registry", metavar="REGISTRY", nargs="?", default=DOCKER, help=f"default: {DOCKER}")
    login.add_argument("-u", "--username", default="", help="default: asks")
    login.add_argument("--password-stdin", action="store_true", help="read the password from stdin instead of asking")
    login.add_argument("--no-check", action="store_true", help="do not let a host try them first")
    login.add_argument("--host", default="", help="the host that tries (default: the first that answers)")
    add_access(login)
    logout = command(subparsers, "logout", help="forget user and password of a registry", examples=LOGOUT)
    logout.add_argument("registry", metavar="REGISTRY", nargs="?", default=DOCKER, help=f"default: {DOCKER}")
    logout.add_argument("--authfile", default="", metavar="FILE", help=f"default: {default_file()}")


def add_access(parser: argparse.ArgumentParser) -> None:
    """The options of everything that speaks to a registry."""
    parser.add_argument(
        "--tls-verify",
        type=_boolean,
        default=True,
        metavar="BOOL",
        help="false: http, or any certificate (default: true)",
    )
    parser.add_argument("--cert", default="", metavar="FILE", help="PEM: whom to trust besides the host's authorities")
    parser.add_argument("--authfile", default="", metavar="FILE", help=f"default: {default_file()}")


def default_file() -> Path:
    """$MIGRATE_AUTH_FILE, else auth.json in the user's configuration."""
    named = os.environ.get("MIGRATE_AUTH_FILE")
    if named:
        return Path(named)
    home = os.environ.get("XDG_CONFIG_HOME") or str(Path.home() / ".config")
    return Path(home) / "migrate" / "auth.json"


def access(args: argparse.Namespace, registry: str) -> RegistryAccess:
    """What the options and the credentials file say about `registry`; nothing of other registries."""
    found = _read(_file(args)).get(registry)
    credentials = json.dumps({"auths": {registry: found}}).encode() if found else b""
    return RegistryAccess(
        credentials=credentials,
        unverified=not args.tls_verify,
        certificates=Path(args.cert).read_bytes() if args.cert else b"",
    )


def access_to_named(args: argparse.Namespace, text: str) -> RegistryAccess:
    """What they say about the registries that `text` (a Dockerfile) names, and Docker's own; nothing of others."""
    found = {name: one for name, one in _read(_file(args)).items() if name in text or name == DOCKER}
    return RegistryAccess(
        credentials=json.dumps({"auths": found}).encode() if found else b"",
        unverified=not args.tls_verify,
        certificates=Path(args.cert).read_bytes() if args.cert else b"",
    )


def registry_of(image: str) -> str:
    """ "registry:5000" of "registry:5000/team/web:1"; Docker's own of a name without one."""
    first, slash, _ = image.partition("/")
    return first if slash and ("." in first or ":" in first or first == "localhost") else DOCKER


def run(args: argparse.Namespace) -> int:
    registry = args.registry.removeprefix("https://").removeprefix("http://").rstrip("/")
    if not registry or "/" in registry:
        raise InvalidArgument(
            f"{args.registry!r} is no registry", hint="a name, and a port if need be: example.com:5000"
        )
    if args.command == "logout":
        return _logout(_file(args), registry)
    return _login(args, registry)


def _login(args: argparse.Namespace, registry: str) -> int:
    from migrate.client import Client

    if args.password_stdin:
        if not args.username:
            raise InvalidArgument(
                "--password-stdin needs --username", hint=f"migrate login {registry} -u USER --password-stdin"
            )
        username, password = args.username, sys.stdin.readline().rstrip("\r\n")
    else:
        if not sys.stdin.isatty():
            raise InvalidArgument(
                "there is no terminal to ask for the password on", hint="--password-stdin reads it from stdin"
            )
        import getpass

        username = args.username or input("Username: ")
        password = getpass.getpass(f"Password of {username} at {registry}: ")
    if not username or not password or ":" in username:
        raise InvalidArgument("user and password cannot be empty, and a user has no colon")
    if not args.no_check:
        with Client(args.coordinator) as client:
            client.try_login(registry, username, password, access=access(args, ""), host=args.host)
    path = _file(args)
    known = _read(path)
    known[registry] = {"auth": base64.b64encode(f"{username}:{password}".encode()).decode()}
    _write(path, known)
    print(f"{username} at {registry} is in {path}")
    return 0


def _logout(path: Path, registry: str) -> int:
    known = _read(path)
    if registry not in known:
        print(
            f"error: nobody is logged in to {registry}\nhint: {path} names {', '.join(sorted(known)) or 'none'}",
            file=sys.stderr,
        )
        return 1
    del known[registry]
    _write(path, known)
    print(f"{registry} is no longer in {path}")
    return 0


def _file(args: argparse.Namespace) -> Path:
    return Path(args.authfile) if args.authfile else default_file()


def _read(path: Path) -> dict[str, Any]:
    """Registry -> its entry."""
    try:
        auths = json.loads(path.read_text()).get("auths") or {}
        return {str(key): dict(value) for key, value in auths.items()}
    except FileNotFoundError:
        return {}
    except (ValueError, AttributeError, TypeError) as exc:
        raise InvalidArgument(f"{path} holds no credentials: {exc}", hint="move it away and log in again") from exc


def _write(path: Path, auths: dict[str, Any]) -> None:
    """Whole or not at all, and never readable by others."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    temp = path.with_name(f".{path.name}.{os.getpid()}")
    temp.unlink(missing_ok=True)
    with open(os.open(temp, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump({"auths": auths}, file, indent=1)
        file.flush()
        os.fsync(file.fileno())
    temp.replace(path)


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false", "1", "0", "yes", "no"):
        raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")
    return text.lower() in ("true", "1", "yes")
