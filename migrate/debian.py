"""Root file systems made of Debian's packages, by mmdebstrap, from the archives that this machine's apt is configured for.

    base("debian:12")    an installed minimal system with apt: the base image where no registry is reachable
    extract(...)         the files of some packages, unpacked and not installed

The same state of the archives gives the same bytes: every time in a base is cut at the date of the archive's release file.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from pathlib import Path

import zstandard

from migrate.errors import InvalidArgument, MigrateError

CACHE_DIR = Path("/var/cache/migrate")
SUITES = {"11": "bullseye", "12": "bookworm", "13": "trixie", "14": "forky"}
PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_FORMAT = 2  # raise it when the code below makes another system of the same packages
_TIMEOUT_S = 1800.0
_HELPER = Path("/usr/lib/apt/apt-helper")
_STEP = re.compile(r"I: ((?:running apt|downloading|extracting|installing|cleaning|creating tar).*?)\.*$")
_PLAIN = re.compile(r"[a-z0-9][a-z0-9+.-]*")
# As in Docker's own Debian images: a package that is installed in a build starts no service, and leaves no archive behind.
POLICY = "usr/sbin/policy-rc.d"
_FILES = {
    POLICY: (
        0o755,
        "#!/bin/sh\n# Nothing is started by installing it: a container starts what its image says.\nexit 101\n",
    ),
    "etc/apt/apt.conf.d/docker-clean": (
        0o644,
        'DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb /var/cache/apt/*.bin || true"; };\n'
        'Dir::Cache::pkgcache ""; Dir::Cache::srcpkgcache "";\n',
    ),
    "etc/dpkg/dpkg.cfg.d/unsafe-io": (0o644, "force-unsafe-io\n"),
}

_AUTHORITIES = Path("/usr/local/share/ca-certificates")
# What decides whether apt can read the same archives from inside: not how this machine likes its apt.
_ACCESS = re.compile(r"(Acquire::(?:Check-Valid-Until|Check-Date|(?:http|https|ftp)::Proxy(?:::[^ ]+)?)) (\".*\";)$")
Files = Mapping[str, tuple[int, str]]  # path without the first slash: mode, text

Report = Callable[[str], None]


class DebianError(MigrateError):
    """The packages could not be had, or not be made into a system; `detail` holds what mmdebstrap said."""

    code = "debian"


@dataclass(frozen=True, kw_only=True)
class Archive:
    """One suite of one archive, as a line of apt's sources says it."""

    uri: str
    suite: str
    components: tuple[str, ...]

    def line(self) -> str:
        return f"deb {self.uri} {self.suite} {' '.join(self.components)}"


def suite_of(name: str) -> str:
    """ "bookworm" of "debian:12", "debian:bookworm" or "bookworm". Raises InvalidArgument."""
    distribution, colon, version = name.rpartition(":")
    if (colon and distribution != "debian") or (not colon and version == "debian"):
        raise InvalidArgument(f"{name!r} cannot be made of Debian's packages", hint="migrate image bootstrap debian:12")
    suite = SUITES.get(version, version)
    if not _PLAIN.fullmatch(suite) or suite[0].isdigit():
        raise InvalidArgument(
            f"{name!r}: no suite of Debian is known as {version!r}", hint=f"known: {', '.join(SUITES)}"
        )
    return suite


def base(
    name: str, *, include: Sequence[str] = (), cache_dir: Path = CACHE_DIR, report: Report = lambda _: None
) -> Path:
    """A tar, zstd, of a minimal system (mmdebstrap's minbase) with apt, its sources those of this machine, moved to the suite,
    and what it takes to read them: proxies, dates, the certificate authorities that this machine's administrator trusts.

    Kept in `cache_dir` until the archives change; where these cannot be asked, the newest that is kept is good enough. As
    root. Raises DebianError, InvalidArgument.
    """
    suite = suite_of(name)
    for package in include:
        if not _PLAIN.fullmatch(package):
            raise InvalidArgument(f"{package!r} is no name of a package")
    _need_mmdebstrap()
    sources = archives(suite)
    stem = f"debian-{suite}-{_digest(sorted(include))[:8]}"
    report(f"asking for the state of {suite}")
    released = release_date(sources)
    if not released:
        kept = sorted(cache_dir.glob(f"{stem}-*.tar.zst"), key=lambda path: path.name)
        if kept:
            report(f"the archives do not answer: the system of {kept[-1].name.split('-')[3]} is taken")
            return kept[-1]
        raise DebianError(
            f"the archives of {suite} do not answer: {', '.join(one.uri for one in sources) or 'none is configured'}",
            hint="check that apt-get update works here",
        )
    stamp = f"{datetime.fromtimestamp(released, UTC):%Y%m%dT%H%M%SZ}"
    files = {**_FILES, **_access()}
    path = cache_dir / f"{stem}-{stamp}-{_digest([_FORMAT, [asdict(one) for one in sources], files])[:8]}.tar.zst"
    if path.exists():
        report(f"kept from {stamp}")
        return path
    cache_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{stem}-", dir=cache_dir) as scratch:
        made = Path(scratch) / "base.tar"
        words = ["--variant=minbase", "--format=tar", *_hooks(Path(scratch), files)]
        if include:
            words.append(f"--include={','.join(include)}")
        _mmdebstrap([*words, suite, str(made), "-"], sources, scratch=Path(scratch), epoch=released, report=report)
        report("compressing")
        packed = made.with_suffix(".tar.zst")
        with made.open("rb") as source, packed.open("wb") as target:
            zstandard.ZstdCompressor(level=6, threads=-1).copy_stream(source, target)
        packed.rename(path)
    for old in cache_dir.glob(f"{stem}-*.tar.zst"):
        if old != path:
            old.unlink(missing_ok=True)
    return path


def extract(packages: Iterable[str], suite: str, target: Path) -> None:
    """Unpack packages and what they depend on into `target`, a directory that is not there; no script of theirs runs.

    Tries mmdebstrap's own mirror, then those of this machine's apt: not each can be reached. Raises DebianError.
    """
    _need_mmdebstrap()
    complaints: list[str] = []
    mirrors = dict.fromkeys(one.uri for one in _configured() if one.suite == _plain_suite(one.suite))
    for mirror in (None, *mirrors):
        for options in ((), ("--aptopt=Acquire::Check-Valid-Until false",)):
            words = ["mmdebstrap", "--variant=extract", f"--include={','.join(packages)}", *options, suite, str(target)]
            done = subprocess.run(
                words + ([mirror] if mirror else []), capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
            )
            if done.returncode == 0:
                return
            complaints.append(done.stderr.strip()[-600:])
            shutil.rmtree(target, ignore_errors=True)
            if "valid" not in done.stderr.lower():
                break  # not an index past its date
    raise DebianError(
        f"packages could not be fetched from Debian {suite}: {', '.join(packages)}",
        detail="\n".join(complaints),
        hint="check that apt-get update works",
    )


def archives(suite: str) -> list[Archive]:
    """This machine's own archives of Debian, with their suites those of `suite`: bookworm-security -> trixie-security.

    Empty where apt has none: mmdebstrap then knows its own.
    """
    found: dict[tuple[str, str], list[str]] = {}
    for one in _configured():
        plain = _plain_suite(one.suite)
        wanted = suite + one.suite.removeprefix(plain)
        known = found.setdefault((one.uri, wanted), [])
        known += [component for component in one.components if component not in known]
    return [Archive(uri=uri, suite=name, components=tuple(known)) for (uri, name), known in found.items()]


def release_date(sources: Sequence[Archive]) -> int:
    """Unix time of the newest release file of the archives; 0 where not all of them answer, or there is none."""
    newest = 0
    with tempfile.TemporaryDirectory(prefix="migrate-release-") as scratch:
        for number, one in enumerate(sources):
            file = Path(scratch) / str(number)
            command = [str(_HELPER), "download-file", f"{one.uri.rstrip('/')}/dists/{one.suite}/InRelease", str(file)]
            try:
                done = subprocess.run(command, capture_output=True, timeout=120, check=False)
            except (OSError, subprocess.TimeoutExpired):
                return 0
            found = (
                re.search(r"^Date: (.+)$", file.read_text(errors="replace"), re.MULTILINE) if file.exists() else None
            )
            if done.returncode != 0 or found is None:
                return 0
            newest = max(newest, int(parsedate_to_datetime(found[1]).timestamp()))
    return newest


def _configured() -> Iterator[Archive]:
    """What apt is configured for, of Debian's own archives."""
    form = "$(CREATED_BY)|$(ORIGIN)|$(RELEASE)|$(COMPONENT)|$(REPO_URI)|$(LABEL)"
    try:
        done = subprocess.run(
            ["apt-get", "indextargets", "--format", form], capture_output=True, text=True, timeout=60, check=False
        )
    except FileNotFoundError:
        return
    for line in done.stdout.splitlines():
        kind, origin, suite, component, uri, label = line.split("|", 5)
        if kind == "Packages" and origin == "Debian" and label in ("Debian", "Debian-Security"):
            yield Archive(uri=uri, suite=suite, components=(component,))


def _plain_suite(suite: str) -> str:
    """ "bookworm" of "bookworm-updates" and of "bookworm-security"."""
    return suite.partition("-")[0]


def _access() -> dict[str, tuple[int, str]]:
    """The files that say how this machine reads its archives, and whom it trusts besides Debian's own list of authorities."""
    try:
        dump = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, timeout=60, check=False).stdout
    except FileNotFoundError:
        dump = ""
    lines = [f"{found[1]} {found[2]}\n" for line in dump.splitlines() if (found := _ACCESS.fullmatch(line))]
    files = {"etc/apt/apt.conf.d/90archives": (0o644, "".join(sorted(lines)))} if lines else {}
    for path in sorted(_AUTHORITIES.glob("*.crt")):
        files[str(path).removeprefix("/")] = (0o644, path.read_text())
    return files


def _hooks(scratch: Path, files: Files) -> list[str]:
    """Options that put `files` in, and take out what belongs to the machine that this ran on."""
    words = []
    for number, (name, (mode, text)) in enumerate(files.items()):
        source = scratch / f"file{number}"
        source.write_text(text)
        # Before anything is configured: mmdebstrap's own policy would go away again at the end, and ours with it; and
        # ca-certificates, where it is included, reads the authorities when it is configured.
        when = "extract" if name == POLICY or name.endswith(".crt") else "customize"
        words.append(f'--{when}-hook=install -D -m {mode:o} "{source}" "$1/{name}"')
    left = '"$1/etc/resolv.conf" "$1/etc/hostname" "$1"/var/cache/apt/*.bin'
    return [*words, "--skip=chroot/policy-rc.d", f"--customize-hook=rm -f {left}"]


def _mmdebstrap(words: Sequence[str], sources: Sequence[Archive], *, scratch: Path, epoch: int, report: Report) -> None:
    environment = {**os.environ, "SOURCE_DATE_EPOCH": str(epoch), "TMPDIR": str(scratch), "LC_ALL": "C.UTF-8"}
    scratch.chmod(0o755)  # apt drops its rights to a user of its own
    lines = "".join(f"{one.line()}\n" for one in sources)
    listed = scratch / "sources"
    listed.write_text(lines)
    said: list[str] = []
    with (
        listed.open("rb") as stdin,
        subprocess.Popen(
            ["mmdebstrap", *words],
            stdin=stdin,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        ) as process,
    ):
        assert process.stderr is not None
        try:
            for line in process.stderr:
                said.append(line.rstrip())
                if found := _STEP.match(line):
                    report(found[1])
        except BaseException:
            process.kill()
            raise
    if process.returncode != 0:
        raise DebianError(
            f"mmdebstrap ended with {process.returncode}",
            detail="\n".join(said[-15:]),
            hint="it needs root, and archives that answer: check that apt-get update works here",
        )


def _need_mmdebstrap() -> None:
    if shutil.which("mmdebstrap") is None:
        raise DebianError("mmdebstrap is not installed: it fetches the packages", hint="apt-get install mmdebstrap")


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
