"""Rounds that look only at what the kernel has named miss nothing: restless programs write while rounds run, then stand still."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.handover import inside
from agent.storage import tree_rescan, tree_scan
from agent.storage.tree import TreeSource, TreeTarget
from agent.storage.tree_watch import TreeWatch
from tests.system import strict_tree
from tests.system.tree_move import Move

pytestmark = pytest.mark.system

PROGRAM = Path(__file__).parents[1] / "workloads" / "restless_files.py"


class Restless:
    """The program, in `directory` or in an overlay of it."""

    def __init__(self, directory: Path, seed: int, *, overlay: bool) -> None:
        argv = [sys.executable, str(PROGRAM), str(directory), str(seed), *(["overlay"] if overlay else [])]
        self.process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def said(self) -> tuple[int, set[str]]:
        """How many changes, and which ones."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write("\n")
        count, *kinds = self.process.stdout.readline().split()
        return int(count), set(kinds)

    def hold(self) -> None:
        self.process.send_signal(signal.SIGSTOP)
        while Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()[0] != "T":
            time.sleep(0.001)

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def tmpfs(tmp_path: Path) -> Iterator[Path]:
    """A file system where a store through a mapping changes no time."""
    where = tmp_path / "memory"
    where.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", str(where)], check=True)
    yield where
    subprocess.run(["umount", "-l", str(where)], check=True)


def drive(base: Path, upper: Path, copy: Path, seed: int, *, overlay: bool) -> dict[str, int]:
    """One life of the program, with rounds beside it; the last one while it stands still. Returns what was done."""
    source, target = TreeSource(upper, watch=True), TreeTarget(copy)
    assert source.watched
    program = Restless(base if overlay else upper, seed, overlay=overlay)
    try:
        rounds = 6
        for _ in range(rounds):
            for frame in source.delta():
                target.apply(frame)
            time.sleep(0.15)
        count, kinds = program.said()
        time.sleep(0.1)
        program.hold()
        pids = [program.process.pid]
        held = inside.held_in_layer(pids, upper) if overlay else inside.held_in_volumes(pids)
        for last in (False, True):  # the one before is as in a move: beside CRIU's dump
            for frame in source.delta(held.unseen, held.open, still=not last, last=last):
                target.apply(frame)
        assert source.digest() == target.finish()
        ours = strict_tree.read(upper)
        assert strict_tree.differences(ours, strict_tree.read(copy)) == []
        return {
            "changes": count,
            "kinds": len(kinds),
            "rounds": rounds + 2,
            "names": len(ours),
            "held": len(held.unseen) + len(held.open),
        }
    finally:
        program.end()
        source.close()
        target.close()


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize("kind", ["overlay", "directory", "tmpfs"])
def test_restless_programs_arrive_exactly(
    kind: str, seed: int, tmp_path: Path, tmpfs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Calls, mappings open, closed and sealed, O_DIRECT, AIO, splice, holes, moved directories: the copy is the frozen source."""
    base = tmpfs if kind == "tmpfs" else tmp_path / "disk"
    base.mkdir(exist_ok=True)
    for name in ("lower/d/e", "upper", "work", "merged", "copy/upper"):
        (base / name).mkdir(parents=True)
    for number in range(40):
        (base / ("lower/d" if number % 2 else "lower/d/e") / str(number)).write_bytes(os.urandom(3000 * number))
    done = drive(base, base / "upper", base / "copy/upper", seed, overlay=kind == "overlay")
    with capsys.disabled():
        print(f"\n  {kind} {seed}: " + ", ".join(f"{count} {what}" for what, count in done.items()), end=" ")
    assert done["changes"] > 100 and done["kinds"] > 20


@pytest.fixture
def move(tmp_path: Path) -> Iterator[Move]:
    made = Move(tmp_path, watch=True)
    yield made
    made.close()


def test_a_round_looks_at_what_changed_only(move: Move, monkeypatch: pytest.MonkeyPatch) -> None:
    """With 5,000 files of which two changed, the last round lists no directory and asks for two files."""
    for number in range(5000):
        if number % 100 == 0:
            (move.upper / str(number)).mkdir()
        (move.upper / str(number - number % 100) / f"f{number}").write_text(str(number))
    time.sleep(0.1)
    move.round()
    (move.upper / "0" / "f7").write_text("changed")
    (move.upper / "4900" / "new").write_text("new")
    looked: list[str] = []
    real = os.stat

    def stat(path: object, **kwargs: object) -> os.stat_result:
        looked.append(str(path))
        return real(path, **kwargs)  # type: ignore[arg-type, call-overload, no-any-return]

    monkeypatch.setattr(os, "stat", stat)
    monkeypatch.setattr(tree_scan, "scan", None)
    move.finish()
    monkeypatch.undo()
    assert sorted(name for name in looked if not name.startswith("/")) == ["f7", "new"]
    assert move.differences() == []


def test_a_queue_that_ran_over_means_a_look_at_everything(move: Move) -> None:
    """More changes than the kernel keeps events for, while nobody reads them: none is missed."""
    (move.upper / "kept").write_text("x")
    time.sleep(0.1)
    move.round()
    limit = int(Path("/proc/sys/fs/fanotify/max_queued_events").read_text())
    watch = move.source._watch
    assert watch is not None
    with watch._guard:
        path = move.upper / "name"
        path.touch()
        for number in range(limit + 500):
            path = path.rename(move.upper / f"name{number}")
        (move.upper / "kept").write_text("changed when the queue was full")
    move.finish()
    assert move.differences() == []


def test_a_directory_that_leaves_the_tree_takes_all_with_it(move: Move, tmp_path: Path) -> None:
    """Moved out, and one moved in: no event names what is inside, and it goes or comes all the same."""
    for name in ("out/deep/er", "stays"):
        (move.upper / name).mkdir(parents=True)
    (move.upper / "out/deep/er/file").write_text("gone with it")
    os.link(move.upper / "out/deep/er/file", move.upper / "stays/other-name")
    outside = tmp_path / "outside"
    (outside / "x/y").mkdir(parents=True)
    (outside / "x/y/file").write_text("comes with it")
    time.sleep(0.1)
    move.round()
    (move.upper / "out/deep/er/late").write_text("written before it went")
    (move.upper / "out").rename(outside / "out")
    (outside / "x").rename(move.upper / "stays/x")
    move.round()
    assert move.differences() == []
    (outside / "out").rename(move.upper / "stays/x/y/back")
    (outside / "gone").mkdir()
    move.finish()
    assert move.differences() == []


def test_directories_that_change_places(move: Move) -> None:
    """A parent becomes its child's child, two swap names, a deep one moves up: all in one round, in any order of events."""
    (move.upper / "a/b/c").mkdir(parents=True)
    (move.upper / "a/b/c/file").write_text("deep")
    (move.upper / "p").mkdir()
    (move.upper / "q").mkdir()
    (move.upper / "p/one").write_text("1")
    time.sleep(0.1)
    move.round()
    (move.upper / "a/b").rename(move.upper / "b")
    (move.upper / "a").rename(move.upper / "b/c/a")
    (move.upper / "p").rename(move.upper / "t")
    (move.upper / "q").rename(move.upper / "p")
    (move.upper / "t").rename(move.upper / "q")
    (move.upper / "q/one").rename(move.upper / "b/c/a/one")
    move.finish()
    assert move.differences() == []


_SHORT_LIVED = """
import os, sys
print("ready", flush=True)
for number in range(300_000):
    name = f"{sys.argv[1]}/{os.getpid()}-{number % 50}"
    os.close(os.open(name, os.O_CREAT | os.O_WRONLY))
    os.unlink(name)
"""


def test_inodes_that_are_given_away_again_while_they_are_looked_up(tmp_path: Path) -> None:
    """The kernel says "no memory" of a handle whose inode becomes another file's at that moment: one that is gone, no more."""
    argv = [sys.executable, "-c", _SHORT_LIVED, str(tmp_path)]
    programs = [subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    directory = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    watch = TreeWatch(directory)
    try:
        for program in programs:
            assert program.stdout is not None
            assert program.stdout.readline() == "ready\n"
        noted = [watch.take() for _ in range(100)]
        assert any(tmp_path.stat().st_ino in one.names for one in noted)
    finally:
        watch.close()
        os.close(directory)
        for program in programs:
            program.kill()
            program.communicate()


def test_a_directory_that_went_and_left_its_name_to_another(tmp_path: Path) -> None:
    """As overlayfs does it: the directory is exchanged for the mark of its removal. It comes back later, or its inode number does."""
    move = Move(tmp_path, watch=True)
    try:
        (move.upper / "a").mkdir()
        (move.upper / "a" / "inner").write_bytes(b"x")
        move.round()
        (move.upper / "a").chmod(0o700)  # it is named itself, too
        (move.upper / "a").rename(tmp_path / "outside")
        (move.upper / "a").write_bytes(b"another")
        move.round()
        (tmp_path / "outside").rename(move.upper / "b")
        move.round()
        move.finish()
        assert move.differences() == []
    finally:
        move.close()


def test_a_directory_that_moves_while_all_is_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seen under one name, it could not be listed: what is in it is not gone."""
    move = Move(tmp_path, watch=True)
    try:
        (move.upper / "a").mkdir()
        (move.upper / "a" / "inner").write_bytes(b"x")
        move.round()
        real = tree_scan.Directories.fd

        def not_clear(*_arguments: object, **_options: object) -> tree_scan.Scan:
            raise tree_rescan.NotClear("so all is looked at")

        def moves_away(directories: tree_scan.Directories, node: tree_scan.Node) -> int:
            if (move.upper / "a").exists() and node.inode == (move.upper / "a").stat().st_ino:
                (move.upper / "a").rename(move.upper / "b")
            return real(directories, node)

        with monkeypatch.context() as patch:
            patch.setattr(tree_rescan.Rescan, "run", not_clear)
            patch.setattr(tree_scan.Directories, "fd", moves_away)
            move.round()
        move.round()
        move.finish()
        assert move.differences() == []
    finally:
        move.close()
