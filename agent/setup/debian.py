"""Debian packages that the project needs: install those that are missing, and start nothing by doing so.

Standard library only; as root. On another distribution it says which programs to install by hand.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

from agent.errors import Unsupported

PACKAGES = {  # name -> what it is for
    "python3-venv": "the virtual environment",
    "busybox-static": "the tests' smallest container",
    "mmdebstrap": "CRIU's bundle and the demo's container image",
    "nftables": "CRIU's network lock",
    "iproute2": "bridges, veth pairs, addresses",
    "openssh-server": "the only door of a host",
    "openssh-client": "bulk data between hosts",
    "slirp4netns": "a lab's way out, for builds",
    "libseccomp2": "filters of system calls",
    "skopeo": "images from and to registries",
    "tini": "process 1 of containers with --init",
    "tar": "CRIU packs a container's tmpfs with it",
    "gzip": "the same",
    "tcc": "compiles what keeps large memory out of CRIU's sight (agent/setup/withheld.py)",
}
_POLICY = Path("/usr/sbin/policy-rc.d")
_MARK = "# Made by migrate's agent/setup/debian.py while it installs packages; safe to delete."
_DENY = f"#!/bin/sh\n{_MARK}\nexit 101\n"
_TIMEOUT_S = 900.0


def ensure(packages: Sequence[str] = tuple(PACKAGES)) -> str:
    """Install what is missing of `packages`; say what was done, "" for nothing. Raises Unsupported where it cannot."""
    if shutil.which("dpkg-query") is None or shutil.which("apt-get") is None:
        return _without_apt()
    absent = missing(packages)
    if not absent:
        return ""
    listed = " ".join(absent)
    if os.geteuid() != 0:
        raise Unsupported(
            f"Debian packages are missing: {listed}", hint=f"as root: apt-get install --no-install-recommends {listed}"
        )
    with no_daemon_starts():
        _apt("update")
        _apt("install", "--yes", "--no-install-recommends", *absent)
    if "openssh-server" in absent:
        _keep_sshd_off()
    if still := missing(absent):
        raise Unsupported(f"apt-get did not install {' '.join(still)}", hint=f"apt-get install {' '.join(still)}")
    return f"installed {listed}"


def missing(packages: Sequence[str]) -> list[str]:
    """Those of `packages` that dpkg does not call installed, in their order."""
    argv = ["dpkg-query", "--show", "--showformat", "${Package} ${db:Status-Status}\n", *packages]
    done = subprocess.run(
        argv, capture_output=True, text=True, timeout=60, check=False
    )  # 1 where it knows none of that name
    installed = {line.split()[0] for line in done.stdout.splitlines() if line.endswith(" installed")}
    return [name for name in packages if name not in installed]


@contextlib.contextmanager
def no_daemon_starts(policy: Path = _POLICY) -> Iterator[None]:
    """While this lasts, invoke-rc.d starts no service. What was at `policy` is put back, if need be by the next run."""
    saved = policy.with_name(policy.name + ".before-migrate")
    _put_back(policy, saved)
    if policy.exists() or policy.is_symlink():
        policy.rename(saved)
    try:
        policy.write_text(_DENY)
        policy.chmod(0o755)
        yield
    finally:
        _put_back(policy, saved)


def _put_back(policy: Path, saved: Path) -> None:
    if policy.is_file() and _MARK in policy.read_text(errors="replace"):
        policy.unlink()
    if saved.exists() or saved.is_symlink():
        saved.replace(policy)


def _apt(*arguments: str) -> None:
    """Run apt-get quietly; its output only where it fails. Waits for a dpkg lock that somebody else holds."""
    argv = ["apt-get", "--quiet=2", "-o", "DPkg::Lock::Timeout=300", *arguments]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    try:
        done = subprocess.run(
            argv,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as exc:
        raise Unsupported(
            f"apt-get {arguments[0]} took more than {_TIMEOUT_S:.0f} s", hint="run it by hand and look"
        ) from exc
    if (
        done.returncode != 0 and arguments[0] != "update"
    ):  # one unreachable source of many does not matter if the packages are there
        said = (done.stderr or done.stdout).strip()[-1500:]
        raise Unsupported(
            f"apt-get {arguments[0]} failed: {said}",
            hint="repair apt (apt-get update; apt-get -f install), then run this again",
        )


def _keep_sshd_off() -> None:
    """The package enables its service for the next boot; the project brings its own sshd and needs no service."""
    for argv in (["deb-systemd-helper", "disable", "ssh.service", "ssh.socket"], ["update-rc.d", "ssh", "disable"]):
        if shutil.which(argv[0]) is not None:
            subprocess.run(argv, capture_output=True, timeout=60, check=False)


def _without_apt() -> str:
    programs = {
        "ip": "iproute2",
        "nft": "nftables",
        "sshd": "an OpenSSH server",
        "ssh": "an OpenSSH client",
        "tar": "tar",
        "gzip": "gzip",
    }
    path = os.environ.get("PATH", "") + ":/usr/local/sbin:/usr/sbin:/sbin"
    absent = [what for program, what in programs.items() if shutil.which(program, path=path) is None]
    if absent:
        raise Unsupported(
            f"this system has no apt-get, and these are missing: {', '.join(absent)}",
            hint="install them with its own package manager",
        )
    return ""
