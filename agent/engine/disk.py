"""A file system of its own for a writable layer that may not grow past a size: an ext4 in a file of the container's directory.

    containers/ID/layer.img ── loop device (frees itself) ──► containers/ID/layer/{upper,work}

A write past the size gets ENOSPC, whatever the host's file system is. The file is sparse, and what is deleted inside is given back
(discard). Direct I/O below: no second page cache, and limits of the disk hold. The mount belongs to the container's existence, not to
its run: made with it or after the host's boot, gone with it. Standard library only.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import struct
import subprocess
from pathlib import Path

from agent.errors import StorageError, Unsupported
from agent.linux import mounts

IMAGE, MOUNT = "layer.img", "layer"
LEAST_BYTES = 16 << 20
_REPAIRED = 1  # of e2fsck: there was something, and it is right now
_TRIES = 32  # a free device can be taken by somebody else before we have it
# From the Linux kernel headers (loop.h).
_LOOP_CTL_GET_FREE = 0x4C82
_LOOP_CONFIGURE = 0x4C0A
_LO_FLAGS_AUTOCLEAR = 4
_LO_FLAGS_DIRECT_IO = 16
_LOOP_INFO = struct.Struct("QQQQQIIII64s64s32sQQ")


def make(directory: Path, size_bytes: int) -> None:
    """A new, empty one, mounted. Raises Unsupported where the host has no loop devices or no mkfs.ext4, StorageError else."""
    mkfs = _program("mkfs.ext4")
    if mkfs is None:
        raise Unsupported("a writable layer of a limited size needs mkfs.ext4", hint="apt install e2fsprogs")
    image = directory / IMAGE
    try:
        with image.open("xb") as file:
            image.chmod(0o600)
            file.truncate(size_bytes)
        options = "lazy_itable_init=1,lazy_journal_init=1,nodiscard"  # a file that was just made reads as zeros
        done = subprocess.run(
            # Where the host has no room for what was promised, the layer becomes read-only before it becomes wrong.
            [mkfs, "-q", "-F", "-m", "0", "-e", "remount-ro", "-E", options, str(image)],
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError as exc:
        raise StorageError(f"cannot make {image}: {exc.strerror}") from exc
    if done.returncode:
        raise StorageError(f"mkfs.ext4 refuses {size_bytes} bytes: {done.stderr.strip()}", hint="ask for another size")
    _mount(directory)


def attach(directory: Path) -> None:
    """Mount it, if the container has one and it is not mounted, checked and repaired. Raises Unsupported, StorageError."""
    image = directory / IMAGE
    if not image.exists() or mounts.is_mounted(directory / MOUNT):
        return
    if check := _program("e2fsck"):
        done = subprocess.run([check, "-p", str(image)], capture_output=True, text=True, check=False)
        if done.returncode > _REPAIRED:
            raise StorageError(f"{image} is damaged: {done.stdout.strip()}", hint=f"look at it: e2fsck {image}")
    _mount(directory)


def _mount(directory: Path) -> None:
    image, target = directory / IMAGE, directory / MOUNT
    try:
        target.mkdir(mode=0o755, exist_ok=True)
        path, device = _loop_device(image)
        try:
            mounts.mount(path, target, "ext4", 0, "discard")  # keeps the device; the last one to let go frees it
        finally:
            os.close(device)
    except OSError as exc:
        raise StorageError(f"cannot mount {image} on {target}: {exc.strerror}") from exc


def detach(directory: Path) -> None:
    """Unmount it; nothing there is fine. Raises OSError."""
    mounts.unmount_all(directory / MOUNT)


def _program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")


def _loop_device(image: Path) -> tuple[str, int]:
    """(its path, a descriptor that holds it)."""
    file = os.open(image, os.O_RDWR | os.O_CLOEXEC)
    try:
        control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    except OSError as exc:
        os.close(file)
        raise Unsupported(
            f"a writable layer of a limited size needs loop devices: /dev/loop-control: {exc.strerror}",
            hint="modprobe loop; or leave --storage-opt out",
        ) from exc
    flags = _LO_FLAGS_AUTOCLEAR | _LO_FLAGS_DIRECT_IO
    name = os.fsencode(image)[-63:]
    info = _LOOP_INFO.pack(0, 0, 0, 0, 0, 0, 0, 0, flags, name, b"", b"", 0, 0)
    config = struct.pack("II", file, 0) + info + bytes(64)
    try:
        for _ in range(_TRIES):
            path = f"/dev/loop{fcntl.ioctl(control, _LOOP_CTL_GET_FREE)}"
            device = os.open(path, os.O_RDWR | os.O_CLOEXEC)
            try:
                fcntl.ioctl(device, _LOOP_CONFIGURE, config)
                return path, device
            except OSError as exc:
                os.close(device)
                if exc.errno != errno.EBUSY:
                    raise
        raise StorageError(f"no loop device was free in {_TRIES} tries", hint="losetup --list")
    finally:
        os.close(control)
        os.close(file)
