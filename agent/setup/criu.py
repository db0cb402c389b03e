"""Which CRIU this host uses, and whether it is new enough for the running kernel.

Order: the path configured in agent.toml, the private bundle under /opt/migrate/criu (criu_bundle.py), the system's own.
Standard library only; starts `criu` as a child process and nothing else.
"""

from __future__ import annotations

import platform
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from agent.errors import Unsupported
from agent.setup import withheld

BUNDLE = Path("/opt/migrate/criu")
# A folder with one link, to the distribution's pycriu: all of dist-packages on sys.path would shadow our own packages.
SYSTEM_PYCRIU = Path("/opt/migrate/system-pycriu")
DIST_PYCRIU = Path("/usr/lib/python3/dist-packages/pycriu")
REMEDY = "run `make setup`, or `python3 -m agent.setup criu`: it makes a private CRIU in /opt/migrate/criu"
_TIMEOUT_S = 120.0  # of one that hangs: a host under load must not count as one without CRIU


@dataclass(frozen=True, kw_only=True)
class CriuInstall:
    """A CRIU that this host can use. `pycriu_path` goes first on sys.path; it holds only the package `pycriu`."""

    binary: Path
    pycriu_path: Path
    version: tuple[int, ...]
    withheld: Path | None = None  # see withheld.py

    @property
    def version_text(self) -> str:
        return ".".join(str(part) for part in self.version)


def locate(configured: str = "") -> CriuInstall:
    """The CRIU to use; `configured` is AgentConfig.criu, "" to search.

    Raises Unsupported where there is none, where the first one found is too old for this kernel, or where its pycriu
    is missing.     Runs `criu --version` (about 5 ms) and not `criu check`: see `check`.
    """
    binary = _binary(configured)
    version = version_of(binary)
    release = platform.release()
    if version < floor(release):
        needed = ".".join(str(part) for part in floor(release))
        found = ".".join(str(part) for part in version)
        raise Unsupported(f"CRIU {found} at {binary} is too old: kernel {release} needs {needed} or newer", hint=REMEDY)
    for folder in (binary.parent.parent / "pycriu-path", BUNDLE / "pycriu-path", SYSTEM_PYCRIU):
        if (folder / "pycriu" / "rpc_pb2.py").is_file():
            return CriuInstall(binary=binary, pycriu_path=folder, version=version, withheld=withheld.locate())
    raise Unsupported(
        f"CRIU is at {binary}, but its Python package pycriu is not linked in {SYSTEM_PYCRIU}", hint=REMEDY
    )


def version_of(binary: Path) -> tuple[int, ...]:
    """`criu --version` as numbers, (4, 2, 1). Raises Unsupported when the binary does not start."""
    try:
        done = subprocess.run(
            [str(binary), "--version"], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise Unsupported(f"{binary} does not start: {exc}", hint=REMEDY) from exc
    match = re.search(r"^Version:\s*(\d+(?:\.\d+)+)", done.stdout, re.MULTILINE)
    if match is None:
        said = (done.stderr or done.stdout).strip()
        raise Unsupported(f"{binary} --version ended with {done.returncode}: {said}", hint=REMEDY)
    return tuple(int(part) for part in match.group(1).split("."))


def check(binary: Path) -> str:
    """Run `criu check`, about 0.1 s: "" when this kernel has what CRIU needs, else the line that says what is missing."""
    return _check(binary, [])


def has_feature(binary: Path, feature: str) -> bool:
    """`criu check --feature NAME`: whether kernel and CRIU together can do it."""
    return _check(binary, ["--feature", feature]) == ""


def floor(kernel_release: str) -> tuple[int, ...]:
    """The oldest CRIU that can dump TCP sockets on this kernel: 6.16 refuses the SO_PASSCRED query of CRIU 4.1."""
    return (4, 2) if kernel_version(kernel_release) >= (6, 16) else (4, 1)


def kernel_version(release: str) -> tuple[int, int]:
    """Major and minor number of a kernel release such as "6.12.48+deb13-cloud-amd64"."""
    match = re.match(r"(\d+)\.(\d+)", release)
    return (int(match.group(1)), int(match.group(2))) if match else (0, 0)


def _binary(configured: str) -> Path:
    if configured:
        path = Path(configured)
        if not path.is_file():
            raise Unsupported(
                f"criu = {configured!r} in agent.toml is no file", hint="correct the path, or remove the line to search"
            )
        return path
    bundled = BUNDLE / "bin" / "criu"
    if bundled.is_file():
        return bundled
    system = system_binary()
    if system is None:
        raise Unsupported(f"there is no CRIU: neither {bundled} nor a criu of the system", hint=REMEDY)
    return system


def system_binary() -> Path | None:
    """The distribution's criu, or None. /usr/sbin may not be on an agent's PATH."""
    found = shutil.which("criu") or shutil.which("criu", path="/usr/local/sbin:/usr/sbin:/sbin")
    return Path(found) if found else None


def _check(binary: Path, more: list[str]) -> str:
    argv = [str(binary), "--no-default-config", "check", *more]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired) as exc:
        return str(exc)
    if done.returncode == 0:
        return ""
    lines = (done.stderr + done.stdout).strip().splitlines() or [f"ended with {done.returncode}"]
    return ([line for line in lines if "Error" in line] or lines)[-1]
