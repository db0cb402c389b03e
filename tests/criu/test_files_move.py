"""A container's files from outside, before, during and after a move."""

from __future__ import annotations

import io
import tarfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from migrate.errors import MigrateError
from migrate.records import Run
from tests.criu.moving_lab import MovingLab, program, wait_for

pytestmark = pytest.mark.criu


@pytest.fixture
def name(fleet: MovingLab) -> Iterator[str]:
    """A container on host1 that runs."""
    fleet.client.run(Run(image="work", host="host1", name="files", argv=program("counter", "/srv/counter.json")))
    yield "files"
    fleet.client.remove("files", force=True)


def archived(fleet: MovingLab, name: str) -> dict[str, tuple[int, int, int, int]]:
    """Of everything but what the running program writes."""
    with tarfile.open(fileobj=io.BytesIO(b"".join(fleet.client.export(name)))) as tar:
        return {one.name: (one.mode, one.uid, one.gid, one.size) for one in tar if not one.name.startswith("srv/")}


def test_files_go_in_and_out_before_and_after_a_move(fleet: MovingLab, name: str, tmp_path: Path) -> None:
    """cp, diff, export, commit and rootfs say the same on the target; an image made there runs there."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a").write_text("before")
    assert fleet.cli("cp", str(tmp_path / "in"), f"{name}:/opt/in").returncode == 0
    assert fleet.run(name, "/bin/sh", "-c", "chown 7:8 /opt/in/a; rm /etc/group; echo x >/dev/shm/x")[0] == 0
    before = archived(fleet, name)
    changes = [one for one in fleet.client.diff(name) if not one.path.startswith("/srv")]
    assert {(one.kind, one.path) for one in changes} >= {("A", "/opt/in/a"), ("D", "/etc/group"), ("C", "/etc")}
    fleet.move(name)
    container = fleet.client.inspect(name)
    assert container.host == "host2"
    assert fleet.client.rootfs(name).host == "host2"
    assert [one for one in fleet.client.diff(name) if not one.path.startswith("/srv")] == changes
    assert archived(fleet, name) == before
    assert before["opt/in/a"] == (0o644, 7, 8, 6)
    assert fleet.cli("cp", f"{name}:/opt/in/a", str(tmp_path / "out")).returncode == 0
    assert (tmp_path / "out").read_text() == "before"
    assert b"x\n" in b"".join(fleet.client.read_tar(name, "/dev/shm/x"))
    (tmp_path / "in/b").write_text("after")
    assert fleet.cli("cp", f"{tmp_path}/in/.", f"{name}:/opt/in").returncode == 0
    assert fleet.run(name, "/bin/cat", "/opt/in/b") == (0, "after")
    done = fleet.cli("commit", "-m", "there", "-c", 'CMD ["/bin/cat", "/opt/in/a", "/opt/in/b"]', name, "made:there")
    assert (done.returncode, done.stdout[:7]) == (0, "sha256:"), done.stderr
    assert fleet.client.inspect(name).state == "running"
    ran = fleet.cli("run", "--rm", "--host", "host2", "made:there")
    assert (ran.returncode, ran.stdout) == (0, "beforeafter"), ran.stderr
    # The frozen container went on, and can move back.
    fleet.move(name)
    assert fleet.client.inspect(name).host == "host1"
    assert fleet.run(name, "/bin/cat", "/opt/in/b") == (0, "after")


def test_a_copy_and_a_move_do_not_mix(fleet: MovingLab, name: str) -> None:
    """Who copies into it holds up the move, which says so; during the move files are refused; nothing is lost by either."""
    go = threading.Event()

    def slow() -> Iterator[bytes]:
        yield tar_of("first")
        go.wait(60)

    copying = threading.Thread(target=lambda: fleet.client.write_tar(name, "/opt", slow()))
    copying.start()
    try:
        wait_for(lambda: fleet.run(name, "/bin/sh", "-c", "ls /opt/first")[0] == 0)
        with pytest.raises(MigrateError, match="being copied"):
            fleet.client.move(name, to="host2").result()
    finally:
        go.set()
        copying.join()
    refused: list[str] = []
    moving = threading.Thread(target=fleet.move, args=(name,))
    moving.start()
    wait_for(lambda: fleet.client.migrations(active=True))
    while moving.is_alive():
        try:
            fleet.client.write_tar(name, "/opt", [tar_of(f"n{time.monotonic_ns()}")])
        except MigrateError as exc:
            refused.append(exc.message)
        time.sleep(0.01)
    moving.join()
    assert refused
    assert fleet.client.inspect(name).host == "host2"
    assert fleet.run(name, "/bin/ls", "/opt/first")[0] == 0


def tar_of(name: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        info = tarfile.TarInfo(name)
        info.size = 4
        tar.addfile(info, io.BytesIO(b"data"))
    return buffer.getvalue()
