"""What the target of a moved layer does with frames that its own source would never send."""

from __future__ import annotations

import os
import random
import stat
import struct
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.errors import AgentError, StorageError, TransferError
from agent.storage import tree_records as wire
from agent.storage.tree import TreeSource, TreeTarget

pytestmark = pytest.mark.unit


@pytest.fixture
def target(tmp_path: Path) -> TreeTarget:
    root = tmp_path / "layer" / "upper"
    root.mkdir(parents=True)
    return TreeTarget(root)


def frame(*records: tuple[wire.Op, bytes]) -> bytes:
    writer = wire.FrameWriter()
    for op, body in records:
        writer.add(op, body)
    writer.flush()
    return b"".join(bytes(one) for one in writer.take())


def create(node: int, parent: int, mode: int, name: bytes, link: bytes = b"") -> tuple[wire.Op, bytes]:
    return wire.Op.CREATE, wire.CREATE.pack(node, parent, mode, 0, len(name)) + name + link


FILE, DIRECTORY, LINK = stat.S_IFREG | 0o644, stat.S_IFDIR | 0o755, stat.S_IFLNK | 0o777


@pytest.mark.parametrize("name", [b"", b".", b"..", b"a/b", b"/etc/x", b"../x", b"a\0b", b"n" * 256])
@pytest.mark.parametrize("op", ["create", "link", "unlink"])
def test_names_are_single_components(target: TreeTarget, tmp_path: Path, name: bytes, op: str) -> None:
    """No name from the wire can leave its directory."""
    records = {
        "create": [create(2, 1, FILE, name)],
        "link": [create(2, 1, FILE, b"f"), (wire.Op.LINK, wire.LINK.pack(2, 1) + name)],
        "unlink": [create(2, 1, FILE, b"f"), (wire.Op.UNLINK, wire.UNLINK.pack(2, 1, 0) + name)],
    }
    with pytest.raises(TransferError):
        target.apply(frame(*records[op]))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["layer"]


@pytest.mark.parametrize(
    "records",
    [
        [create(2, 1, LINK, b"l", b"/tmp"), create(3, 2, FILE, b"f")],
        [create(2, 1, FILE, b"f"), create(3, 2, FILE, b"g")],
        [create(2, 9, FILE, b"f")],
        [create(2, 0, FILE, b"f")],
        [create(0, 1, FILE, b"f")],
        [create(1, 1, FILE, b"f")],
        [create(2, 1, FILE, b"f"), create(2, 1, FILE, b"g")],
        [create(2, 1, FILE, b"f"), create(3, 1, FILE, b"f")],
        [create(2, 1, 0o644, b"f")],
        [create(2, 1, DIRECTORY, b"d"), (wire.Op.LINK, wire.LINK.pack(2, 1) + b"e")],
        [(wire.Op.UNLINK, wire.UNLINK.pack(1, 1, 0) + b"x")],
        [create(2, 1, FILE, b"f"), (wire.Op.UNLINK, wire.UNLINK.pack(2, 0, 0) + b"2")],
        [create(2, 1, FILE, b"f"), (wire.Op.UNLINK, wire.UNLINK.pack(2, 1, 0) + b"g")],
        [create(2, 1, LINK, b"l", b"/etc/passwd"), (wire.Op.SIZE, wire.SIZE.pack(2, 0))],
        [(wire.Op.SIZE, wire.SIZE.pack(1, 5))],
        [create(2, 1, FILE, b"f"), (wire.Op.SIZE, wire.SIZE.pack(2, (1 << 64) - 1))],
        [create(2, 1, FILE, b"f"), (wire.Op.BLOCK, wire.BLOCK.pack(2, 0) + struct.pack("<HII", 1, 0, 5) + b"12345")],
        [create(2, 1, FILE, b"f"), (wire.Op.META, wire.META.pack(2, DIRECTORY, 0, 0, 0, 0, 0, 0))],
        [(wire.Op.XATTR, wire.XATTR.pack(1, 22) + b"trusted.overlay.origin")],
        [(wire.Op.END, wire.END.pack(2, 1, 0, bytes(16)))],
        [(wire.Op.END, wire.END.pack(1, 1, 7, bytes(16)))],
        [(wire.Op.SIZE, b"short")],
        [(wire.Op.META, b"")],
    ],
    ids=lambda records: "-".join(op.name for op, _ in records),
)
def test_records_without_sense_are_refused(
    target: TreeTarget, tmp_path: Path, records: list[tuple[wire.Op, bytes]]
) -> None:
    """What cannot be done to the tree as it is ends the move, and nothing outside the tree is touched."""
    with pytest.raises((TransferError, StorageError)):
        target.apply(frame(*records))
    target.close()
    assert [path.name for path in (tmp_path / "layer").iterdir()] == ["upper"]


@pytest.mark.parametrize(
    "harm",
    [
        lambda data: b"",
        lambda data: data[:7],
        lambda data: b"XXXX" + data[4:],
        lambda data: b"MTr\x02" + data[4:],
        lambda data: data[:-1],
        lambda data: data + b"\x01",
        lambda data: data[:8] + b"\x63" + data[9:],
        lambda data: data + bytes(1 << 20),
    ],
    ids=["empty", "short", "magic", "version", "cut", "one more", "unknown record", "too long"],
)
def test_frames_without_sense_are_refused(target: TreeTarget, harm: Callable[[bytes], bytes]) -> None:
    """A frame that is cut, too long or of another version is a TransferError."""
    with pytest.raises(TransferError):
        target.apply(harm(frame(create(2, 1, FILE, b"f"))))


def test_extents_must_fit() -> None:
    """Extents that overlap, leave the block or do not match the data are refused."""
    for extents, data in (
        ([(0, 5), (4, 5)], b"x" * 10),
        ([(65_000, 1000)], b"x" * 1000),
        ([(0, 10)], b"x" * 5),
        ([(0, 5)], b"x" * 10),
        ([(0, 0)], b""),
    ):
        body = (
            wire.BLOCK.pack(2, 0) + struct.pack("<H", len(extents)) + b"".join(struct.pack("<II", *e) for e in extents)
        )
        with pytest.raises(TransferError):
            list(wire.unpack_block(memoryview(body + data)))


def test_random_bytes_only_raise_agent_errors(tmp_path: Path) -> None:
    """Any bit of a real round flipped, one or several: either refused with an AgentError, or noticed in the end."""
    upper = tmp_path / "upper"
    (upper / "d").mkdir(parents=True)
    (upper / "d" / "f").write_bytes(os.urandom(3000))
    (upper / "l").symlink_to("d/f")
    os.link(upper / "d" / "f", upper / "g")
    frames = [bytes(one) for one in TreeSource(upper).delta(last=True)]
    assert len(frames) == 1
    chance = random.Random(5)
    for turn in range(400):
        damaged = bytearray(frames[0])
        for _ in range(chance.choice((1, 1, 1, 5))):
            damaged[chance.randrange(len(damaged))] ^= 1 << chance.randrange(8)
        root = tmp_path / f"{turn}" / "upper"
        root.mkdir(parents=True)
        target = TreeTarget(root)
        try:
            target.apply(damaged)
            target.finish()
        except AgentError:
            continue
        finally:
            target.close()
        # Times of access are not compared: the only thing that may change unseen.
        assert (root / "d" / "f").read_bytes() == (upper / "d" / "f").read_bytes()
        assert {path.name for path in root.iterdir()} == {path.name for path in upper.iterdir()}


def test_a_target_must_be_empty(tmp_path: Path) -> None:
    """Nothing is ever mixed into what is there already."""
    (tmp_path / "upper").mkdir()
    (tmp_path / "upper" / "old").touch()
    with pytest.raises(StorageError, match="not empty"):
        TreeTarget(tmp_path / "upper")


def test_frames_stay_valid_and_small() -> None:
    """Every frame is its own buffer of at most 1 MiB, numbered without gaps."""
    writer = wire.FrameWriter()
    for number in range(40):
        writer.add(wire.Op.SIZE, bytes([number]) * 100_000)
    writer.flush()
    frames = writer.take()
    assert len(frames) == 4
    assert all(len(one) <= wire.FRAME_BYTES for one in frames)
    bodies = [body[0] for sequence, one in enumerate(frames) for _, body in wire.records(one, sequence)]
    assert bodies == list(range(40))
    assert writer.take() == []
