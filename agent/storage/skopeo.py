"""Runs skopeo, which speaks to registries for us (docs/adr/0008): what it is told, and what its complaints mean.

Credentials go to it in a memory file, never in an argument, an environment variable or a file on a disk.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from agent.errors import AgentError, InvalidArgument, NotFound, TransferError, Unsupported
from agent.storage import names

PROGRAM = "skopeo"
DENIED = "registry.denied"
UNREACHABLE = "registry.unreachable"
_TIMEOUT_S = 120.0
_MEMORY = Path("/dev/shm")  # noqa: S108  # a file system in memory, where a login's file lives for a moment

# A connection that breaks, a server that is overloaded or starts anew: worth another try.
_PASSING = re.compile(
    r"unexpected EOF|: EOF|connection reset|broken pipe|use of closed|i/o timeout|TLS handshake timeout|server misbehaving"
    r"|received unexpected HTTP status: 5\d\d|too many requests|toomanyrequests|http2: |client\.timeout",
    re.IGNORECASE,
)


@dataclass(frozen=True, kw_only=True)
class Access:
    """How to reach a registry. `credentials`: as containers-auth.json(5), or empty; `certificates`: PEM, or empty.

    `unverified`: http, or https with a certificate that nobody checks.
    """

    credentials: bytes = field(default=b"", repr=False)
    unverified: bool = False
    certificates: bytes = b""


class Passing(TransferError):
    """Another try may work."""


@contextlib.contextmanager
def options(access: Access, prefix: str = "") -> Iterator[tuple[list[str], tuple[int, ...]]]:
    """Arguments of a skopeo command ("--src-" or "--dest-" as `prefix` of `copy`), and the descriptors to pass to it."""
    words = [f"--{prefix}tls-verify={'false' if access.unverified else 'true'}"]
    with contextlib.ExitStack() as stack:
        # Always one: without it skopeo would use whatever root has logged in to on this host.
        fd = os.memfd_create("registry-credentials", os.MFD_CLOEXEC)
        stack.callback(os.close, fd)
        os.write(fd, access.credentials or b"{}")
        words.append(f"--{prefix}authfile=/proc/self/fd/{fd}")
        if access.certificates:
            directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="migrate-ca-")))
            (directory / "ca.crt").write_bytes(access.certificates)
            words.append(f"--{prefix}cert-dir={directory}")
        yield words, (fd,)


def run(command: str, access: Access, *words: str, what: str) -> bytes:
    """What one short skopeo command prints. Raises what `meaning` makes of its complaint about `what`."""
    with options(access) as (given, descriptors):
        argv = [program(), command, *given, *words]
        try:
            done = subprocess.run(
                argv,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                pass_fds=descriptors,
                timeout=_TIMEOUT_S,
                check=False,
            )
        except subprocess.TimeoutExpired as exc:
            raise Passing(f"{what}: no answer in {_TIMEOUT_S:.0f} s", code=UNREACHABLE, touched="nothing") from exc
    if done.returncode != 0:
        raise meaning(done.stderr.decode(errors="replace"), what)
    return done.stdout


def login(registry: str, username: str, password: bytes, access: Access) -> None:
    """Try user and password. What skopeo would remember is made in memory and thrown away."""
    if not registry or "/" in registry or registry.startswith("-") or not username or username.startswith("-"):
        raise InvalidArgument(
            f"{registry!r} with user {username!r} is nothing to log in to", hint="migrate login registry.example:5000"
        )
    home = _MEMORY if _MEMORY.is_dir() else None
    with options(access) as (given, descriptors), tempfile.TemporaryDirectory(prefix="migrate-", dir=home) as directory:
        words = [word for word in given if not word.startswith("--authfile=")]
        argv = [program(), "login", *words, f"--authfile={directory}/auth.json", "--username", username]
        done = subprocess.run(
            [*argv, "--password-stdin", registry],
            input=password,
            capture_output=True,
            pass_fds=descriptors,
            timeout=_TIMEOUT_S,
            check=False,
        )
    if done.returncode != 0:
        raise meaning(done.stderr.decode(errors="replace"), registry, registry)


def program() -> str:
    """Its path. Raises Unsupported."""
    found = shutil.which(PROGRAM)
    if found is None:
        raise Unsupported(
            "skopeo is not installed on this host: it speaks to registries",
            hint="as root on that host: apt-get install --no-install-recommends skopeo (or: make setup)",
        )
    return found


def meaning(said: str, what: str, registry: str = "") -> AgentError:
    """The error that skopeo's complaint stands for; its own words are in the message."""
    text = _words(said)
    # Without names and numbers that are the caller's: a port may be 40412, an image be called certificate.
    base = what.partition("@")[0]
    repository = names.split(base)[0] if "/" in base else ""
    lower = (text.replace(repository, "") if repository else text).lower()
    if re.search(
        r"manifest unknown|name unknown|not found: manifest|repository .* not found|status(?: code)?:? 404", lower
    ):
        return NotFound(
            f"{what}: the registry has no such image ({text})", hint="check name and tag", code="image.not_found"
        )
    if re.search(r"unauthorized|authentication required|denied|invalid username|status(?: code)?:? 40[13]", lower):
        return TransferError(
            f"{what}: the registry refused: {text}",
            hint=f"migrate login {registry or registry_of(what)}",
            code=DENIED,
            touched="nothing",
        )
    if "server gave http response to https client" in lower:
        return TransferError(
            f"{what}: the registry speaks http, not https",
            hint="--tls-verify=false",
            code=UNREACHABLE,
            touched="nothing",
        )
    if re.search(r"x509|certificate", lower):
        return TransferError(
            f"{what}: its certificate is not trusted: {text}",
            hint="--cert CA.pem names who signed it; --tls-verify=false trusts anybody",
            code=UNREACHABLE,
            touched="nothing",
        )
    if re.search(r"no such host|connection refused|no route|network is unreachable|timeout", lower):
        return TransferError(
            f"{what}: the registry cannot be reached: {text}",
            hint="check the name and the network of that host",
            code=UNREACHABLE,
            touched="nothing",
        )
    if _PASSING.search(text):
        return Passing(f"{what}: the connection broke: {text}", hint="try again", code=UNREACHABLE, touched="nothing")
    return TransferError(f"{what}: {text}", touched="nothing")


def registry_of(name: str) -> str:
    """ "registry:5000" of "registry:5000/team/web"; Docker's own for an image's name without one."""
    first, slash, _ = name.partition("/")
    return first if slash and ("." in first or ":" in first or first == "localhost") else "docker.io"


def _words(said: str) -> str:
    """The last message of skopeo's log, in one line; of something else, all of it."""
    found = re.findall(r'msg="((?:[^"\\]|\\.)*)"', said)
    return " ".join(str(found[-1] if found else said).replace('\\"', '"').replace("\\n", " ").split())
