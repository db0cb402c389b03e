"""A target whose disk or staging tmpfs fills up in the middle of a move, with real file systems and a real receiver."""

from __future__ import annotations

import dataclasses
import io
import json
import os
import socket
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from agent.errors import StorageError, TransferError
from agent.linux import mounts
from agent.memory.policy import Goal
from agent.memory.ranges import PAGE
from agent.setup import criu
from agent.storage.images import ImageStore
from agent.storage.manifest import ImageConfig
from agent.transfer import room, ssh
from agent.transfer.frames import PROTOCOL, Answers, BrokenStream, Kind
from agent.transfer.sender import Sender
from agent.transfer.writer import Writer

pytestmark = [pytest.mark.system, pytest.mark.needs("criu")]

ROOT = Path(__file__).resolve().parents[2]
SMALL_BYTES = 1 << 20
ROOM = (
    r"no room on host2 in \S+/{} for \d+ more bytes of {}: \d+ bytes of this move have arrived, "
    rf"the file system has {SMALL_BYTES} in all"
)


class Target:
    """A receiver process whose memory, layer and store lie on file systems of 1 MiB each."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.mounted = [directory / name for name in ("stage", "layer", "store")]
        for path in self.mounted:
            path.mkdir()
            mounts.mount("hs-full", path, "tmpfs", 0, f"size={SMALL_BYTES}")
        for name in ("stage/images", "stage/logs", "layer/upper"):
            (directory / name).mkdir()
        plan = {
            "host": "host2",
            "migration": "abc",
            "images_dir": f"{directory}/stage/images",
            "memory_dir": f"{directory}/stage/memory",
            "logs_dir": f"{directory}/stage/logs",
            "roots": [f"{directory}/layer/upper"],
            "store": f"{directory}/store",
            "received": f"{directory}/received.json",
            "pycriu_path": str(criu.locate().pycriu_path),
            "lazy": True,
            "again": False,
        }
        (directory / "plan.json").write_text(json.dumps(plan))
        theirs, self.tx_fd = os.pipe()
        self.rx_fd, ours = os.pipe()
        pair = [socket.socketpair() for _ in range(2)]
        fds = (theirs, ours, pair[0][0].fileno(), pair[1][0].fileno())
        names = ("--rx-fd", "--tx-fd", "--control-fd", "--door-fd")
        words = [word for name, fd in zip(names, fds, strict=True) for word in (name, str(fd))]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "agent.transfer.receiver", *words, str(directory / "plan.json")],
            pass_fds=fds,
            cwd=ROOT,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs)
        os.close(ours)
        for each in pair:
            each[0].close()
            each[1].close()
        # What Sender uses of a tunnel: the test is about what comes out of its end.
        self.tunnel = SimpleNamespace(
            rx_fd=self.rx_fd, tx_fd=self.tx_fd, connect_s=0.0, cipher="", close=lambda: None,
            failure=lambda text: TransferError(text),
        )  # fmt: skip

    def close(self) -> None:
        os.close(self.tx_fd)
        os.close(self.rx_fd)
        self.process.wait(20)
        for path in self.mounted:
            mounts.umount(path, mounts.MNT_DETACH)


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Target]:
    (tmp_path / "target").mkdir()
    made = Target(tmp_path / "target")
    yield made
    made.close()


@pytest.fixture
def sender(target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sender:
    """Connected to `target`."""
    monkeypatch.setattr(ssh.BulkTunnel, "open", lambda *_args, **_options: target.tunnel)
    made = Sender(tmp_path)
    (tmp_path / "stage").mkdir()
    command = {"pycriu_path": str(criu.locate().pycriu_path), "migration": "abc"}
    command |= dict.fromkeys(("certificate", "address", "port", "user", "host_keys"), "")
    command |= {"compress": "none", "bandwidth": 0, "connections": 1, "keep": "", "keep_bytes": 0}
    made.handlers()["open"](command, lambda _facts: None)
    return made


def test_an_image_layer(target: Target, sender: Sender, tmp_path: Path) -> None:
    """The source learns host, path and bytes, with a hint; the store holds nothing of the layer."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        entry = tarfile.TarInfo("f")
        entry.size = 8 << 20
        tar.addfile(entry, io.BytesIO(os.urandom(entry.size)))
    store = ImageStore(tmp_path / "source")
    image = store.import_tar("big:latest", ImageConfig(), [buffer.getvalue()])
    command = {"store": str(tmp_path / "source"), "layers": list(image.layers)}
    with pytest.raises(TransferError, match=ROOM.format("store", "an image layer")) as caught:
        sender.handlers()["layers"](command, lambda _facts: None)
    assert caught.value.message.startswith("on the target: ")
    assert "migrate image rm" in caught.value.hint
    assert target.process.wait(20) == 1
    left = [path for path in (target.directory / "store").rglob("*") if path.is_file() and path.name != ".lock"]
    assert left == []


def precopy_command(directory: Path) -> dict[str, object]:
    """Of a container without tasks, whose layer and logs are in `directory`."""
    return {
        "host": "host1",
        "roots": [str(directory / "upper")],
        "logs": str(directory / "logs"),
        "freezer": str(directory),
        "tracker": "",
        "shared": False,
        "goal": dataclasses.asdict(Goal()),
        "throttle": None,
        "watch": False,
    }


def test_the_writable_layer(target: Target, sender: Sender, tmp_path: Path) -> None:
    """The same for a file of the container that does not fit."""
    (tmp_path / "upper").mkdir()
    (tmp_path / "upper/big").write_bytes(os.urandom(8 << 20))
    (tmp_path / "logs").mkdir()
    command = precopy_command(tmp_path)
    with pytest.raises(TransferError, match=ROOM.format("layer/upper", "the writable layer")):
        sender.handlers()["precopy"](command, lambda _facts: None)
    assert target.process.wait(20) == 1


@pytest.mark.parametrize("kind", [Kind.MEMORY, Kind.FILE_DATA])
def test_the_staging_tmpfs(target: Target, sender: Sender, kind: Kind) -> None:
    """The same for memory and images; a tmpfs that is nearly full and takes a part of a write is no success."""

    def send(command: dict[str, object], progress: object) -> dict[str, object]:
        del command, progress
        writer = Writer(target.tx_fd)
        if kind == Kind.FILE_DATA:
            writer.send_json(Kind.FILE, {"name": "a.img", "size": 3 << 20, "kind": "image", "offset": 0})
        size = 12288 if kind == Kind.MEMORY else 300_001
        for number in range(400):
            writer.send(kind, os.urandom(size), task=1, address=number * size)
        pytest.fail("everything fitted")

    with pytest.raises(TransferError, match=ROOM.format("stage/images", "memory and CRIU's images")) as caught:
        sender._explained(send)({}, lambda _facts: None)
    assert isinstance(caught.value.__cause__, BrokenStream)
    assert target.process.wait(20) == 1


def test_what_the_freeze_would_bring(
    target: Target, sender: Sender, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A layer that grew by 1.5 MB in its last round has not room for as much again: said before anything is frozen."""
    mounts.mount("hs-full", target.directory / "layer", "tmpfs", mounts.MS_REMOUNT, "size=3m")
    (tmp_path / "upper").mkdir()
    (tmp_path / "logs").mkdir()
    rounds = iter((("first", 1_200_000), ("second", 1_500_000)))

    original = Sender._send_tree

    def send_tree(*arguments: Any, **options: Any) -> int:
        for name, size in rounds:
            (tmp_path / "upper" / name).write_bytes(os.urandom(size))
            break
        return original(*arguments, **options)

    monkeypatch.setattr(Sender, "_send_tree", send_tree)
    command = precopy_command(tmp_path)
    command["watch"] = True
    expected = (
        rf"no room on host2 in {target.directory}/layer/upper for what is still to come of the writable layer: "
        r"15\d{5} bytes are needed, \d{6} are free"
    )
    with pytest.raises(TransferError, match=expected) as caught:
        sender.handlers()["precopy"](command, lambda _facts: None)
    assert caught.value.hint == "make room on that disk"


def test_memory_that_the_target_has_not(target: Target, sender: Sender) -> None:
    """The container's memory is needed twice for a moment: who has not that much says so, with both figures."""
    expected = {"memory_bytes": 1 << 45, "images_bytes": 1 << 20, "tree_bytes": [0]}
    sender._stream().send_json(Kind.ROUND, {"expected": expected})
    with pytest.raises(TransferError, match=r"not enough memory on host2: \d+ bytes are needed .*; \d+ are available"):
        sender._answer()


def test_a_stage_that_has_become_too_small(target: Target, sender: Sender) -> None:
    """It is made larger while there is memory: a container that grows while it is sent can move."""
    expected = {"memory_bytes": 8 << 20, "images_bytes": 1 << 20, "tree_bytes": [0]}
    writer = sender._stream()
    writer.send_json(Kind.ROUND, {"expected": expected})
    sender._answer()
    for number in range(2 * SMALL_BYTES // 65536):
        writer.send(Kind.MEMORY, os.urandom(65536), task=1, address=number * 65536)
    writer.send_json(Kind.ROUND, {})
    assert sender._answer()["lacking"] == {}
    place = os.statvfs(target.directory / "stage")
    assert place.f_blocks * place.f_frsize >= room.stage_bytes(8 << 20)


def test_images_that_the_source_has_no_room_for(tmp_path: Path) -> None:
    """The stage on the source grows too, and says when its host's memory does not do."""
    place = tmp_path / "stage"
    place.mkdir()
    mounts.mount("hs-full", place, "tmpfs", 0, f"size={SMALL_BYTES}")
    try:
        room.at_source("host1", place, 3 << 20)
        assert os.statvfs(place).f_bfree * PAGE >= 3 << 20
        with pytest.raises(
            StorageError, match=r"not enough memory on host1: \d+ bytes are needed for CRIU's images; \d+ are"
        ):
            room.at_source("host1", place, 1 << 45)
    finally:
        mounts.umount(place, mounts.MNT_DETACH)


def test_a_write_that_the_last_free_page_cuts_short(target: Target, sender: Sender) -> None:
    """One frame of an image that is a little larger than what is left: an error, not a shorter file."""
    writer = Writer(target.tx_fd)
    for name, size in (("first.img", 5000), ("second.img", SMALL_BYTES)):
        writer.send_json(Kind.FILE, {"name": name, "size": size, "kind": "image", "offset": 0})
        writer.send(Kind.FILE_DATA, os.urandom(size))
    writer.send_json(Kind.ROUND, {})
    with pytest.raises(TransferError, match="no room on host2"):
        sender._answer()


def test_an_older_source_is_told_what_to_do(target: Target) -> None:
    """HELLO of another protocol: a no with both numbers, before anything else is looked at."""
    writer = Writer(target.tx_fd)
    writer.send_json(Kind.HELLO, {"protocol": PROTOCOL - 1, "migration": "abc"})
    with pytest.raises(TransferError, match=f"protocol {PROTOCOL - 1}, this host {PROTOCOL}") as caught:
        Answers(target.rx_fd).next()
    assert caught.value.hint == "upgrade the older agent"
    assert target.process.wait(20) == 1
