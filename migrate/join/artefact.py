"""The archive that is carried to a host: everything that an agent needs there, so that the host reaches no package index.

    site/        the project and the packages that it needs, as they lie in site-packages
    criu/        this machine's CRIU bundle, where it has one
    withheld/    the library of agent/criu/withheld.c, where it was compiled

Taken from this machine's own packages where the host has the same Python, else fetched once by pip for the host's. Kept in
a cache by the digest of what is in it, which is also the name of the release on the host.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import migrate
from agent.setup import criu, withheld
from migrate import __version__
from migrate.errors import MigrateError

OURS = ("agent", "migrate", "protos")
SOURCE = Path(migrate.__file__).resolve().parents[1]
# Wheels name the oldest glibc they run on: 2.36 is Debian 12's.
_PLATFORMS = [f"manylinux_2_{minor}_{{machine}}" for minor in range(36, 16, -1)] + ["manylinux2014_{machine}"]
_PIP_LIMIT_S = 900.0
_KEPT = 4  # archives in the cache: of this version and the one before, for two Pythons


class ArtefactError(MigrateError):
    """The archive could not be made."""

    code = "join.artefact"


@dataclass(frozen=True, kw_only=True)
class Artefact:
    """`release`: names what is in it, such as "0.1.0-3f2a9c01b7de"."""

    release: str
    path: Path


def cache_directory() -> Path:
    """$XDG_CACHE_HOME/migrate, ~/.cache/migrate."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    return (Path(base) if base.startswith("/") else Path.home() / ".cache") / "migrate"


def make(python: str, *, cache: Path | None = None, say: Callable[[str], None] = lambda _text: None) -> Artefact:
    """For hosts with this version of Python ("3.13") and this machine's processor. Raises ArtefactError."""
    own = python == "{}.{}".format(*sys.version_info)
    packages = dict(_closure())
    release = f"{__version__}-{_digest(python, packages)}"
    folder = cache or cache_directory()
    path = folder / f"{release}.tar.gz"
    if path.is_file():
        return Artefact(release=release, path=path)
    say(f"building the installation for Python {python}" + ("" if own else ", with pip from its package index"))
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="migrate-artefact-", dir=folder) as scratch_name:
        scratch = Path(scratch_name)
        site = scratch / "site"
        site.mkdir()
        if own:
            for name in packages:
                _copy_distribution(name, site)
        else:
            _fetch(python, packages, site)
        for name in OURS:
            shutil.copytree(SOURCE / name, site / name, ignore=shutil.ignore_patterns("__pycache__"))
        beside = scratch / "tar"
        with tarfile.open(beside, "w:gz", compresslevel=1) as tar:
            tar.add(site, "site", filter=_plain)
            if _bundle() is not None:
                tar.add(criu.BUNDLE, "criu", filter=_plain)
            if (library := withheld.locate()) is not None:
                tar.add(library, f"withheld/{library.name}", filter=_plain)
        beside.replace(path)
    for old in sorted(folder.glob("*.tar.gz"), key=lambda one: one.stat().st_mtime, reverse=True)[_KEPT:]:
        old.unlink(missing_ok=True)
    return Artefact(release=release, path=path)


def _digest(python: str, packages: dict[str, str]) -> str:
    """Of our own files, the packages' versions, and the CRIU that goes along."""
    content = hashlib.sha256(f"{python} {platform.machine()} {sorted(packages.items())}".encode())
    for name in OURS:
        for path in sorted((SOURCE / name).rglob("*")):
            if path.is_file() and "__pycache__" not in path.parts:
                content.update(f"\0{path.relative_to(SOURCE)}\0".encode() + path.read_bytes())
    bundle = _bundle()
    content.update(b"" if bundle is None else (bundle / "sbin/criu").read_bytes())
    content.update((withheld.locate() or Path("none")).name.encode())
    return content.hexdigest()[:12]


def _bundle() -> Path | None:
    return criu.BUNDLE if (criu.BUNDLE / "sbin/criu").is_file() else None


def _closure() -> Iterator[tuple[str, str]]:
    """Name and version of every distribution that the project needs to run, itself left out."""
    waiting, seen = [*_needs("migrate")], set()
    while waiting:
        name = waiting.pop()
        if name in seen:
            continue
        seen.add(name)
        try:
            yield name, importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue  # for another system or an older Python: its marker says so, and pip did not install it
        waiting += _needs(name)


def _needs(name: str) -> Iterator[str]:
    try:
        requirements = importlib.metadata.requires(name) or []
    except importlib.metadata.PackageNotFoundError as exc:
        raise ArtefactError(
            f"the project's own packages are not known to this Python: {exc}", hint="make setup, or install it with pip"
        ) from exc
    for requirement in requirements:
        if "extra ==" not in requirement and (match := re.match(r"[A-Za-z0-9._-]+", requirement)):
            yield re.sub(r"[-_.]+", "-", match.group()).lower()


def _copy_distribution(name: str, site: Path) -> None:
    """Its files, without the commands that name this machine's Python."""
    files = importlib.metadata.files(name)
    if not files:
        raise ArtefactError(f"nothing says which files belong to the package {name}", hint="install it with pip")
    for file in files:
        source = Path(str(file.locate()))
        if ".." in file.parts or "__pycache__" in file.parts or not source.is_file():
            continue
        target = site / file
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target)


def _fetch(python: str, packages: dict[str, str], site: Path) -> None:
    platforms = [word for text in _PLATFORMS for word in ("--platform", text.format(machine=platform.machine()))]
    options = ["--only-binary=:all:", "--no-compile", "--no-deps", "--target", str(site)]
    wanted = [f"{name}=={version}" for name, version in sorted(packages.items())]
    argv = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "install", *options]
    argv += ["--python-version", python, "--implementation", "cp", *platforms, *wanted]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=_PIP_LIMIT_S, check=False)
        said = done.stderr.strip()[-800:] if done.returncode else ""
    except (OSError, subprocess.TimeoutExpired) as exc:
        said = str(exc)
    if said:
        raise ArtefactError(
            f"pip could not fetch the packages for Python {python}",
            detail=said,
            hint="this machine must reach a package index for that, the host need not; or run the coordinator with the hosts' Python",
        )
    shutil.rmtree(site / "bin", ignore_errors=True)


def _plain(member: tarfile.TarInfo) -> tarfile.TarInfo | None:
    if "__pycache__" in member.name:
        return None
    member.uid = member.gid = 0
    member.uname = member.gname = "root"
    return member
