"""Everything that init mounts and sets can be dumped and restored by CRIU, again and again; what docs/adr/0003 rests on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.engine import init
from agent.engine.session import Session
from agent.setup import criu
from tests.system.small_container import ROOT, SmallContainer, busybox_like_layer, plan
from tests.system.test_exec import Reader, namespaces_of, request
from tests.system.test_init_root import mount_root, unmount_root

pytestmark = pytest.mark.criu

COUNT = "n=0; while :; do n=$((n+1)); echo $n > /tmp/count; sleep 0.05; done"


class CriuFailedError(Exception):
    """The error lines of its log."""


class Moved:
    """A container that is dumped and restored on the spot; after the first time it has no monitor."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.chmod(0o700)  # the way to the root is closed to the container: CRIU must not need it either
        self.base = busybox_like_layer(directory)
        null = os.open("/dev/null", os.O_RDWR)
        the_plan = plan(directory, argv=["sh", "-c", COUNT], user="", capabilities=["CAP_KILL", "CAP_SETUID"])
        self.container = SmallContainer(directory, [self.base], the_plan, stdio=(null, null, null))
        os.close(null)
        self.container.start()
        assert self.container.error is None
        self.rounds = 0

    @property
    def pid(self) -> int:
        return self.container.pid

    def count(self) -> int:
        file = self.directory / "layer/upper/tmp/count"
        for _ in range(500):  # the file is not there at first, and empty for an instant each time
            if file.exists() and (text := file.read_text()):
                return int(text)
            time.sleep(0.01)
        raise AssertionError("the program does not count")

    def waits_for_more(self) -> int:
        before = self.count()
        deadline = time.monotonic() + 10
        while self.count() <= before:
            assert time.monotonic() < deadline, "the program stands still"
            time.sleep(0.02)
        return before

    def dump(self) -> Path:
        images = self.directory / f"images{self.rounds}"
        images.mkdir()
        keys = [f"mnt[{point}]:{key}" for point, key, _ in init.external_mounts()]
        self._criu("dump", images, "--tree", str(self.pid), external=keys)
        if self.rounds == 0:
            assert self.container.wait() == -signal.SIGKILL
            self.container.close()  # which unmounts the root
        else:
            unmount_root(self.directory)
        self.rounds += 1
        return images

    def restore(self, images: Path) -> None:
        result = mount_root([self.base], self.directory)
        assert result.returncode == 0, result.stderr
        keys = [f"mnt[{key}]:{source}" for _, key, source in init.external_mounts()]
        pid_file = images / "pid"
        self._criu("restore", images, "--restore-detached", "--pidfile", str(pid_file), external=keys)
        self.container.pid = int(pid_file.read_text())

    def close(self) -> None:
        if self.rounds == 0:
            self.container.close()
            return
        if self.pid and Path(f"/proc/{self.pid}").exists():
            os.kill(self.pid, signal.SIGKILL)
        unmount_root(self.directory)

    def _criu(self, verb: str, images: Path, *options: str, external: list[str]) -> None:
        argv = [str(criu.locate().binary), verb, "--images-dir", str(images), "--log-file", f"{verb}.log", "-v4"]
        argv += [
            "--root",
            self.container.plan["root"],
            "--manage-cgroups=ignore",
            "--network-lock",
            "nftables",
            *options,
        ]
        for key in external:
            argv += ["--external", key]
        result = subprocess.run(argv, capture_output=True, text=True)
        log = (images / f"{verb}.log").read_text(errors="replace")
        if result.returncode:
            raise CriuFailedError("\n".join(line for line in log.splitlines() if "Error" in line))


@pytest.fixture
def moved(tmp_path: Path) -> Iterator[Moved]:
    made = Moved(tmp_path)
    yield made
    made.close()


def mount_table(pid: int) -> set[tuple[str, str, str, str]]:
    """(root in its file system, mount point, mount options, type): what a mount is, without numbers that change."""
    rows = set()
    for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines():
        left, right = line.split(" - ")
        fields = left.split()
        rows.add((fields[3], fields[4], fields[5], right.split()[0]))
    return rows


def credentials(pid: int) -> list[str]:
    wanted = ("Uid", "Gid", "Groups", "Cap", "NoNewPrivs")
    return [line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith(wanted)]


def test_two_moves_change_nothing_that_init_made(moved: Moved) -> None:
    """Mounts with their masks and read-only flags, ids, capabilities and no_new_privs are the same after each restore."""
    mounts, creds = mount_table(moved.pid), credentials(moved.pid)
    ids = Path(f"/proc/{moved.pid}/uid_map").read_text()
    assert ("/sys", "/proc/sys", "ro,nosuid,nodev,noexec,relatime", "proc") in mounts
    for _ in range(2):
        before = moved.waits_for_more()
        moved.restore(moved.dump())
        assert moved.waits_for_more() >= before
        assert mount_table(moved.pid) == mounts
        assert credentials(moved.pid) == creds
        assert Path(f"/proc/{moved.pid}/uid_map").read_text() == ids


def test_a_session_enters_a_restored_container(moved: Moved) -> None:
    """exec works after a move, in all of init's namespaces, with the container's own clock and terminals."""
    moved.waits_for_more()
    images = moved.dump()
    time.sleep(0.5)
    moved.restore(images)
    assert namespaces_of(moved.pid)["time"] != namespaces_of("self")["time"]  # CRIU's: the clocks go on where they were
    with Session(request(moved.container, ["sleep", "30"])) as session:
        assert namespaces_of(session.pid) == namespaces_of(moved.pid)
        session.signal(signal.SIGKILL)
        list(session)
    script = "tty; cat /proc/uptime; cat /tmp/count > /dev/null && echo counting"
    with Session(request(moved.container, ["sh", "-c", script], tty=True)) as session:
        lines = Reader(session).rest().split()
        assert session.exit_code == 0
    assert lines[0] == b"/dev/pts/0"
    assert lines[-1] == b"counting"
    with open("/proc/uptime") as host:
        assert float(lines[1]) < float(host.read().split()[0])  # the half second on disk did not happen in there


def test_a_mount_point_that_the_target_lacks_stops_the_restore(moved: Moved) -> None:
    """Why only paths are masked that every kernel has: a restore cannot leave a mount out."""
    # The container's own root may mount nothing, so the test does it from outside: a mask over a file that is gone later.
    code = (
        "import os, sys; sys.path.insert(0, sys.argv[1]); from pathlib import Path; from agent.linux import mounts, namespaces as n;"
        "n.setns(os.pidfd_open(int(sys.argv[2])), n.CLONE_NEWUSER | n.CLONE_NEWNS);"
        "os.setresgid(0, 0, 0); os.setresuid(0, 0, 0); Path('/tmp/masked').touch();"
        "mounts.bind(Path('/dev/null'), Path('/tmp/masked'), recursive=False)"
    )
    subprocess.run([sys.executable, "-I", "-S", "-c", code, str(ROOT), str(moved.pid)], check=True)
    extra = [("/tmp/masked", "mask-extra", "/dev/null"), *init.external_mounts()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(init, "external_mounts", lambda: extra)
        images = moved.dump()
        (moved.directory / "layer/upper/tmp/masked").unlink()
        with pytest.raises(CriuFailedError, match=r"masked.*No such file"):
            moved.restore(images)
