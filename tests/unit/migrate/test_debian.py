"""Base systems of Debian's packages: what mmdebstrap is told, what is kept, what happens when the archives are silent."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import zstandard

from migrate import debian
from migrate.debian import Archive, DebianError
from migrate.errors import InvalidArgument

pytestmark = pytest.mark.unit

TARGETS = """
Packages|Debian|bookworm|main|http://mirror.example/debian/|Debian
Packages|Debian|bookworm|contrib|http://mirror.example/debian/|Debian
Translations|Debian|bookworm|main|http://mirror.example/debian/|Debian
Packages|Debian|bookworm-updates|main|http://mirror.example/debian/|Debian
Packages|Debian|bookworm-security|main|http://mirror.example/security/|Debian-Security
Packages|Somebody|stable|main|http://other.example/|Other
"""


class Machine:
    """Programs of a Debian machine, as scripts; what mmdebstrap was told is in its directory."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.cache = directory / "cache"
        self.bin = directory / "bin"
        self.bin.mkdir()
        (directory / "targets").write_text(TARGETS.lstrip())
        self.script("apt-get", f"cat {directory}/targets")
        self.authorities = directory / "authorities"
        self.authorities.mkdir()
        self.script("apt-config", "echo 'APT::Architecture \"amd64\";'")
        self.released("Sat, 08 Nov 2025 10:00:00 UTC")
        self.script(
            "mmdebstrap",
            f'echo "$@" > {directory}/words; cat > {directory}/sources; echo $SOURCE_DATE_EPOCH > {directory}/epoch\n'
            'echo "I: running apt-get update..." >&2; echo "W: noise" >&2; echo "I: using /x as tempdir" >&2\n'
            'for word in "$@"; do case $word in *.tar) printf system > $word;; esac; done',
        )

    def script(self, name: str, text: str) -> None:
        path = self.bin / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def released(self, date: str) -> None:
        """What the archives' release files say; "" = they do not answer."""
        said = f'printf "Origin: Debian\\nDate: {date}\\n" > "$3"; echo "$2" >> {self.directory}/asked'
        self.script("apt-helper", said if date else "exit 100")

    def told(self, name: str) -> str:
        return (self.directory / name).read_text()


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine(tmp_path)
    monkeypatch.setenv("PATH", f"{made.bin}:{os.environ['PATH']}")
    monkeypatch.setattr(debian, "_HELPER", made.bin / "apt-helper")
    monkeypatch.setattr(debian, "_AUTHORITIES", made.authorities)
    return made


@pytest.mark.parametrize(
    ("name", "suite"), [("debian:12", "bookworm"), ("debian:trixie", "trixie"), ("13", "trixie"), ("sid", "sid")]
)
def test_a_name_means_a_suite(name: str, suite: str) -> None:
    """Numbers and names of suites, with and without the distribution."""
    assert debian.suite_of(name) == suite


@pytest.mark.parametrize("name", ["debian", "ubuntu:22.04", "debian:7.3", "debian:../x", "debian:12 -o x"])
def test_other_names_are_refused(name: str) -> None:
    """What cannot be a suite never becomes a word of a command."""
    with pytest.raises(InvalidArgument):
        debian.suite_of(name)


def test_the_sources_are_this_machines_moved_to_the_suite(machine: Machine) -> None:
    """Debian's own archives only, each once with its components; updates and security follow the suite."""
    assert debian.archives("trixie") == [
        Archive(uri="http://mirror.example/debian/", suite="trixie", components=("main", "contrib")),
        Archive(uri="http://mirror.example/debian/", suite="trixie-updates", components=("main",)),
        Archive(uri="http://mirror.example/security/", suite="trixie-security", components=("main",)),
    ]


def test_a_base_is_made_once_and_kept_until_the_archives_change(machine: Machine) -> None:
    """Made with the date of the release files; kept; made anew, and the old one dropped, when they change."""
    seen: list[str] = []
    path = debian.base("debian:12", cache_dir=machine.cache, report=seen.append)
    assert zstandard.ZstdDecompressor().stream_reader(path.read_bytes()).read() == b"system"
    assert seen[1:] == ["running apt-get update", "compressing"]
    assert machine.told("epoch") == "1762596000\n"
    assert machine.told("sources").splitlines()[0] == "deb http://mirror.example/debian/ bookworm main contrib"
    assert machine.told("asked").split()[2] == "http://mirror.example/security/dists/bookworm-security/InRelease"
    assert "--variant=minbase" in machine.told("words")
    (machine.directory / "words").unlink()
    assert debian.base("debian:bookworm", cache_dir=machine.cache) == path
    assert not (machine.directory / "words").exists()
    machine.released("Sun, 09 Nov 2025 10:00:00 UTC")
    newer = debian.base("debian:12", cache_dir=machine.cache)
    with_more = debian.base("debian:12", include=["curl"], cache_dir=machine.cache)
    assert "--include=curl" in machine.told("words")
    assert sorted(machine.cache.iterdir()) == sorted([newer, with_more])


def test_what_it_takes_to_read_the_archives_goes_along(machine: Machine) -> None:
    """Proxies, dates and the administrator's authorities are put in, other settings of apt are not; a change makes another base."""
    before = debian.base("debian:12", cache_dir=machine.cache)
    assert "90archives" not in machine.told("words")
    dump = ['Acquire::http::Proxy "http://proxy.example:3128";', 'Acquire::Check-Valid-Until "false";', 'APT::X "y";']
    machine.script("apt-config", "\n".join(f"echo '{line}'" for line in dump))
    (machine.authorities / "ours.crt").write_text("certificate\n")
    # The hooks' sources are gone with the scratch directory: what they would have put in is seen while they are there.
    root = machine.directory / "root"
    hooks = f'case $word in *-hook=install*) sh -c "${{word#*=}}" hook {root};; *.tar) printf system > $word;; esac'
    machine.script(
        "mmdebstrap", f'echo "$@" > {machine.directory}/words; cat > /dev/null; for word in "$@"; do {hooks}; done'
    )
    after = debian.base("debian:12", cache_dir=machine.cache)
    assert after != before
    assert machine.told("root/etc/apt/apt.conf.d/90archives").splitlines() == sorted(dump[:2])
    assert (root / machine.authorities.relative_to("/") / "ours.crt").read_text() == "certificate\n"
    assert "--extract-hook=install -D -m 644" in machine.told("words")


def test_silent_archives(machine: Machine) -> None:
    """What is kept is good enough; with nothing kept the error names the archives."""
    machine.released("")
    with pytest.raises(DebianError, match=r"do not answer: http://mirror\.example/debian/"):
        debian.base("debian:12", cache_dir=machine.cache)
    machine.released("Sat, 08 Nov 2025 10:00:00 UTC")
    path = debian.base("debian:12", cache_dir=machine.cache)
    machine.released("")
    seen: list[str] = []
    assert debian.base("debian:12", cache_dir=machine.cache, report=seen.append) == path
    assert "the system of 20251108T100000Z is taken" in seen[-1]


def test_a_failure_is_told_in_mmdebstraps_words_and_leaves_nothing(machine: Machine) -> None:
    """The last lines are the detail; nothing stays in the cache."""
    machine.script("mmdebstrap", 'echo "E: no such package" >&2; exit 25')
    with pytest.raises(DebianError, match="ended with 25") as caught:
        debian.base("debian:12", cache_dir=machine.cache)
    assert "no such package" in caught.value.detail
    assert list(machine.cache.iterdir()) == []
    with pytest.raises(InvalidArgument):
        debian.base("debian:12", include=["--hook=x"], cache_dir=machine.cache)
