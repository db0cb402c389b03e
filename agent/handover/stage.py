"""The staging tmpfs of a move: its own, of a size that was asked for before anything froze, freed after."""

from __future__ import annotations

import errno
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agent.engine import init
from agent.errors import AgentError, StorageError
from agent.handover.record import Move
from agent.linux import meminfo, mounts
from agent.transfer import room


def mount(move: Move, needed_bytes: int, *, beside_bytes: int = 0) -> None:
    """Mount `move.stage` with room for `needed_bytes`; what is there already stays. `beside_bytes`: of memory that the host must have
    besides. Raises StorageError when memory lacks.
    """
    if move.stage.is_mount():
        return
    wanted, available = needed_bytes + beside_bytes, meminfo.available_bytes()
    if wanted > available:
        raise StorageError(
            f"the move needs {wanted >> 20} MiB of memory on this host, {available >> 20} MiB are available",
            hint="free memory on it, or choose another target",
        )
    move.stage.mkdir(mode=0o700, parents=True, exist_ok=True)
    flags, data = mounts.MS_NOSUID | mounts.MS_NODEV, f"mode=700,size={room.stage_bytes(needed_bytes)}"
    try:
        mounts.mount("migrate-stage", move.stage, "tmpfs", flags, f"{data},huge=advise")
    except OSError as exc:
        if exc.errno != errno.EINVAL:
            raise
        mounts.mount("migrate-stage", move.stage, "tmpfs", flags, data)  # a kernel without huge pages
    for directory in (move.memory, move.logs):
        directory.mkdir(mode=0o700)
    # Restored tasks read CRIU's images as the container's root, by a descriptor: the way there stays closed to everybody else.
    move.images.mkdir()
    move.images.chmod(0o755)
    move.images_link.symlink_to(move.images.name)


def mount_scratch(move: Move, scratch: Sequence[Mapping[str, Any]]) -> None:
    """An empty tmpfs for each of the plan's, at scratch(); what is there already stays. Raises OSError."""
    for number, one in enumerate(scratch):
        place = move.directory / "tmpfs" / str(number)
        if place.is_mount():
            continue
        place.mkdir(mode=0o700, parents=True, exist_ok=True)
        flags = init.tmpfs_flags(name for name in one["flags"] if name != "ro")  # files come into it
        data = ["mode=700", f"size={one['size_bytes']}"] if one["size_bytes"] else ["mode=700"]
        for option in one["data"]:  # ids are the files' own; the two inodes are ours
            key, _, value = option.partition("=")
            if key == "nr_inodes":
                data.append(f"nr_inodes={int(value) + 2 if int(value) else 0}")
        mounts.mount("tmpfs", place, "tmpfs", flags, ",".join(data))
        (place / "root").mkdir()


def scratch(move: Move, count: int) -> list[Path]:
    """Where the files of the container's tmpfs come: below the top of each, for a tree is rebuilt beside a directory of ours."""
    return [move.directory / "tmpfs" / str(number) / "root" for number in range(count)]


def unmount(move: Move) -> None:
    """Idempotent. What a container has taken of its tmpfs stays its own."""
    top = move.directory / "tmpfs"
    for place in top.iterdir() if top.is_dir() else ():
        try:
            mounts.unmount_all(place)
        except OSError as exc:
            raise StorageError(f"cannot unmount {place}: {exc.strerror}") from exc
    try:
        mounts.umount(move.stage, mounts.MNT_DETACH)
    except OSError as exc:
        if exc.errno not in (errno.EINVAL, errno.ENOENT):
            raise StorageError(f"cannot unmount {move.stage}: {exc.strerror}") from exc


def arriving_bytes(moves_dir: Path, container_id: str) -> int:
    """Memory that has come here with the container, as long as not all of it is known to be in its tasks; else 0."""
    total = 0
    for move in Move.all(moves_dir):
        try:
            record = move.read()
            if record.container_id == container_id and record.role == "target":
                total += sum(path.stat().st_blocks * 512 for path in move.memory.glob("*.mem"))
        except (AgentError, OSError):
            continue  # it has just been cleared
    return total
