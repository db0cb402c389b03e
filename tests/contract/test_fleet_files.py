"""Files of containers through the coordinator and the command line: what goes where, what is said, who goes away."""

from __future__ import annotations

import io
import json
import os
import stat
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import pytest

from migrate.cli.main import main
from migrate.errors import NotFound, Unreachable, WrongState
from tests.fakes.files import FilesService
from tests.fakes.fleet import FakeFleet, eventually

pytestmark = pytest.mark.contract


class Inside:
    """The container web1 of host1: its files, and what the fake agent was asked."""

    def __init__(self, fleet: FakeFleet) -> None:
        container = fleet.run("web1")
        self.id = container.id
        self.service: FilesService = fleet.hosts["host1"].files
        self.root = self.service.root(container.id)


@pytest.fixture
def inside(fleet: FakeFleet) -> Inside:
    return Inside(fleet)


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The directory that the command line is in."""
    path = tmp_path / "here"
    path.mkdir()
    monkeypatch.chdir(path)
    return path


class _Stdin:
    def __init__(self, data: bytes) -> None:
        self.data = data

    def __enter__(self) -> None:
        reading, writing = os.pipe()
        os.write(writing, self.data)
        os.close(writing)
        self.saved = os.dup(0)
        os.dup2(reading, 0)
        os.close(reading)

    def __exit__(self, *_: object) -> None:
        os.dup2(self.saved, 0)
        os.close(self.saved)


def tar_of(**files: bytes) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def test_files_and_directories_go_out_and_in(inside: Inside, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """By the rules of docker cp at both ends; what was done is said on stderr, or with -q not."""
    (inside.root / "etc").mkdir()
    (inside.root / "etc/conf").write_text("a=1")
    assert main(["cp", "web1:/etc/conf", "."]) == 0
    assert (here / "conf").read_text() == "a=1"
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "Successfully copied 3.07 kB to .\n"
    assert main(["cp", "-q", "web1:etc/conf", "renamed"]) == 0
    assert main(["cp", "-q", "web1:/etc", "new"]) == 0
    assert main(["cp", "-q", "web1:/etc", "new"]) == 0
    assert main(["cp", "-q", "web1:/etc/.", "new"]) == 0
    assert capsys.readouterr().err == ""
    assert sorted(str(one.relative_to(here)) for one in here.rglob("conf")) == ["conf", "new/conf", "new/etc/conf"]
    (here / "src").mkdir()
    (here / "src/f").write_text("f")
    assert main(["cp", "src", "web1:/srv"]) == 0
    assert main(["cp", "src/.", "web1:/srv"]) == 0
    assert main(["cp", "src/f", "web1:/srv/g"]) == 0
    assert sorted(one.name for one in (inside.root / "srv").iterdir()) == ["f", "g"]
    assert "warning: 1 device files were left out: dev/null" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("source", "destination", "status", "words"),
    [
        ("web1:/a", "web1:/b", 2, "between containers"),
        ("a", "b", 2, "must be in a container"),
        ("web1:", "b", 2, "path is missing"),
        ("web9:/a", ".", 3, "no container 'web9'"),
        ("web1:/nothing", ".", 3, "no file"),
        ("nothing", "web1:/", 3, "on this machine: No such file"),
        ("web1:/dir", "file", 2, "cannot copy a directory to the file"),
        ("web1:/f", "no/", 2, "does not exist"),
        ("web1:/f", "no/where", 3, "here/no\n"),
        ("dir", "web1:/f", 2, "cannot copy a directory to the file"),
        ("file/", "web1:/", 2, "Not a directory"),
    ],
)
def test_what_does_not_fit_is_said(
    inside: Inside,
    here: Path,
    capsys: pytest.CaptureFixture[str],
    source: str,
    destination: str,
    status: int,
    words: str,
) -> None:
    """With an exit status of its kind, without a traceback, and nothing is made."""
    (inside.root / "dir").mkdir()
    (inside.root / "f").touch()
    (here / "dir").mkdir()
    (here / "file").touch()
    assert main(["cp", source, destination]) == status
    captured = capsys.readouterr()
    assert captured.err.startswith("error: ")
    assert words in captured.err
    assert sorted(one.name for one in here.iterdir()) == ["dir", "file"]


def test_a_colon_in_a_path_of_this_machine(inside: Inside, here: Path) -> None:
    """What begins with a dot or a slash is no container."""
    (here / "a:b").write_text("x")
    assert main(["cp", "./a:b", "web1:/x"]) == 0
    assert main(["cp", f"{here}/a:b", "web1:/y"]) == 0
    assert [(inside.root / one).read_text() for one in "xy"] == ["x", "x"]


def test_tars_on_stdin_and_stdout(inside: Inside, here: Path, capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """-: names as docker cp gives them; only into a directory."""
    (inside.root / "d").mkdir()
    (inside.root / "d/f").write_text("x")
    assert main(["cp", "web1:/d", "-"]) == 0
    captured = capfdbinary.readouterr()
    with tarfile.open(fileobj=io.BytesIO(captured.out)) as tar:
        assert tar.getnames() == ["d", "d/f"]
    with _Stdin(tar_of(new=b"from a tar")):
        assert main(["cp", "-", "web1:/d"]) == 0
    assert (inside.root / "d/new").read_text() == "from a tar"
    assert inside.service.copied[-1].keep_owner
    with _Stdin(tar_of(new=b"")):
        assert main(["cp", "-", "web1:/d/f"]) == 2
    assert b"must be a directory" in capfdbinary.readouterr().err


def test_links_are_followed_where_that_is_asked_for(inside: Inside, here: Path) -> None:
    """At the source with -L; the copy has the link's name."""
    (inside.root / "f").write_text("x")
    (inside.root / "l").symlink_to("f")
    assert main(["cp", "-q", "web1:/l", "."]) == 0
    assert (here / "l").is_symlink()
    (here / "l").unlink()
    assert main(["cp", "-q", "-L", "web1:/l", "."]) == 0
    assert (here / "l").read_text() == "x"
    (here / "m").symlink_to("l")
    assert main(["cp", "-q", "-L", "m", "web1:/"]) == 0
    assert (inside.root / "m").read_text() == "x"
    assert main(["cp", "-q", "m", "web1:/n"]) == 0
    assert (inside.root / "n").readlink() == Path("l")


def test_no_privilege_comes_out_of_a_container(inside: Inside, here: Path) -> None:
    """Set-id bits go, unless -a asks for all."""
    (inside.root / "su").write_text("x")
    (inside.root / "su").chmod(0o4755)
    assert main(["cp", "-q", "web1:/su", "."]) == 0
    assert stat.S_IMODE((here / "su").stat().st_mode) == 0o755
    if os.geteuid() == 0:
        assert main(["cp", "-q", "-a", "web1:/su", "all"]) == 0
        assert stat.S_IMODE((here / "all").stat().st_mode) == 0o4755


def test_a_copy_that_is_cut_off_is_an_error(fleet: FakeFleet, inside: Inside, here: Path) -> None:
    """No file of which only a part came is left."""
    (inside.root / "big").write_bytes(b"x" * 10_000)
    with pytest.raises(Unreachable, match="cut off"):
        fleet.client.copy_from("web1", "/cut", here)
    assert list(here.iterdir()) == []
    with pytest.raises(Unreachable, match="cut off"):
        list(fleet.client.read_tar("web1", "/cut"))


def test_a_reader_that_goes_away_ends_the_copy_on_the_host(fleet: FakeFleet, inside: Inside) -> None:
    """A killed process is enough, and so is leaving the iteration."""
    host = fleet.hosts["host1"]
    process = subprocess.Popen(
        [sys.executable, "-m", "migrate", "cp", "web1:/wait", "-"],
        stdout=subprocess.PIPE,
        env={**os.environ, "MIGRATE_COORDINATOR": str(fleet.socket)},
    )
    eventually(lambda: host.calls.count("Files.CopyOut") == 1)
    process.kill()
    process.communicate()
    assert host.cancelled.wait(20)
    host.cancelled.clear()
    tar = fleet.client.read_tar("web1", "/wait")
    eventually(lambda: host.calls.count("Files.CopyOut") == 2)
    del tar
    assert host.cancelled.wait(20)


def test_a_sender_that_goes_away_leaves_nothing(fleet: FakeFleet, inside: Inside) -> None:
    """The agent is told that it was cut, not that it has ended."""

    def tar() -> Any:
        yield tar_of(a=b"1" * 100_000)[:2000]
        raise RuntimeError("the program of the sender failed")

    with pytest.raises(Exception):  # noqa: B017  # whatever gRPC makes of it
        fleet.client.write_tar("web1", "/", tar())
    assert list(inside.root.iterdir()) == []


def test_while_it_is_being_moved_its_files_are_refused(fleet: FakeFleet, inside: Inside, here: Path) -> None:
    """By the coordinator already, with the move's id."""
    fleet.begin_move(inside.id)
    (here / "f").touch()
    for act in (
        lambda: fleet.client.copy_to("web1", "f", "/"),
        lambda: fleet.client.copy_from("web1", "/f", "."),
        lambda: fleet.client.diff("web1"),
        lambda: list(fleet.client.export("web1")),
        lambda: fleet.client.commit("web1"),
    ):
        with pytest.raises(WrongState, match="abcdef"):
            act()
    assert not [call for call in fleet.hosts["host1"].calls if call.startswith("Files.")]


def test_files_are_found_where_a_move_has_taken_the_container(fleet: FakeFleet, inside: Inside) -> None:
    """The new owner is asked."""
    (inside.root / "f").touch()
    fleet.move(inside.id, "host1", "host2")
    assert fleet.client.rootfs("web1").host == "host2"
    assert [one.path for one in fleet.client.diff("web1")] == ["/f"]
    assert fleet.hosts["host2"].calls.count("Files.Diff") == 1


def test_diff_export_commit_and_rootfs_on_the_command_line(
    fleet: FakeFleet, inside: Inside, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What they print, and what they ask for."""
    (inside.root / "a").touch()
    assert main(["diff", "web1"]) == 0
    assert capsys.readouterr().out == "A /a\n"
    assert main(["diff", "web1", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == [{"kind": "A", "path": "/a"}]
    assert main(["rootfs", "web1"]) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{inside.root}\n"
    assert captured.err == "on host host1\n"
    assert main(["export", "-o", "out.tar", "web1"]) == 0
    assert (here / "out.tar").read_bytes() == b"all of it"
    assert main(["commit", "-a", "Ann", "-m", "why", "-c", "CMD x", "-c", "ENV A=1", "-p=false", "web1", "w:2"]) == 0
    assert capsys.readouterr().out == "sha256:" + "c" * 64 + "\n"
    asked = inside.service.commits[-1]
    assert (asked.id, asked.name, asked.author, asked.message, list(asked.changes), asked.running) == (
        inside.id, "w:2", "Ann", "why", ["CMD x", "ENV A=1"], True,
    )  # fmt: skip
    assert main(["commit", "-p", "web1"]) == 0
    assert not inside.service.commits[-1].running
    for words in (["diff", "web9"], ["export", "web9"], ["commit", "web9"], ["rootfs", "web9"]):
        assert main(words) == 3
        assert "no container 'web9'" in capsys.readouterr().err
    with pytest.raises(NotFound):
        fleet.client.diff("web9")


def test_the_shell_completes_containers_with_a_colon(
    fleet: FakeFleet, inside: Inside, capsys: pytest.CaptureFixture[str]
) -> None:
    """At both places of cp; as they are of the others."""
    for words, expected in ((["cp", "we"], "web1:"), (["cp", ".", ""], "web1:"), (["diff", ""], "web1")):
        assert main(["__complete", "--", *words]) == 0
        assert capsys.readouterr().out == f"{expected}\n"
