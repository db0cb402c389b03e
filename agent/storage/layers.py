"""A container's writable layer: the upper and work directories of its overlay. Ids on disk are unshifted (0 = root)."""

from __future__ import annotations

import itertools
import os
import stat
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from agent.errors import InvalidArgument, StorageError
from agent.linux import remove
from agent.storage import rawfs, tree_scan


class WritableLayer:
    """The directory `path` of one container; its parent exists."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def upper(self) -> Path:
        """What the container has written: this is what moves."""
        return self._path / "upper"

    @property
    def work(self) -> Path:
        """The overlay's own; never moves."""
        return self._path / "work"

    def create(self) -> None:
        """Make both directories, empty; root of the container owns them. Idempotent."""
        try:
            for path in (self._path, self.upper, self.work):
                path.mkdir(exist_ok=True)
                # Of the upper directory these become those of the container's "/"; the umask has no say in them.
                os.chown(path, 0, 0)
                path.chmod(0o755)
        except OSError as exc:
            raise StorageError(f"cannot make the writable layer {self._path}: {exc.strerror}") from exc

    def seed(self, files: Mapping[str, bytes], lower: Sequence[Path] = ()) -> None:
        """Write files ("/etc/hosts") before the first start, mode 644, so that they move with the layer.

        Their directories look as in the image: in the first of `lower` (unpacked layers, base first) from the top that
        has them; 755 of root in none.
        """
        for name, data in files.items():
            parts = PurePosixPath(name).parts
            if not name.startswith("/") or ".." in parts or len(parts) < 2:
                raise InvalidArgument(f"{name!r} is no absolute path of a file")
            try:
                self._write(parts[1:], data, lower)
            except OSError as exc:
                raise StorageError(f"cannot write {name} into {self.upper}: {exc.strerror}") from exc

    def remove(self) -> None:
        """Delete it with all that is in it. Idempotent; the overlay is unmounted."""
        try:
            remove.tree(self._path)
        except FileNotFoundError:
            pass  # a removal that was interrupted, or a container that never got so far
        except OSError as exc:
            raise StorageError(f"cannot remove the writable layer {self._path}: {exc}") from exc

    def size_bytes(self) -> int:
        """Bytes of data in the upper directory, see tree_bytes."""
        return tree_bytes(self.upper)

    def _write(self, parts: Sequence[str], data: bytes, lower: Sequence[Path]) -> None:
        directory = self.upper
        for depth, part in enumerate(parts[:-1], 1):
            directory = directory / part
            if not directory.is_symlink() and directory.is_dir():
                continue
            like = _topmost(lower, parts[:depth])
            directory.mkdir()
            os.chown(directory, like.st_uid if like else 0, like.st_gid if like else 0)
            directory.chmod(stat.S_IMODE(like.st_mode) if like else 0o755)
            if like:
                os.utime(directory, ns=(like.st_atime_ns, like.st_mtime_ns))
        path = directory / parts[-1]
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o644)
        with open(fd, "wb") as file:
            file.write(data)
            os.fchown(fd, 0, 0)
            os.fchmod(fd, 0o644)


def tree_bytes(root: Path) -> int:
    """Bytes of data in a directory, holes not counted, an inode with many names once. Raises StorageError."""
    try:
        directories = tree_scan.Directories(root)
        try:
            found = tree_scan.scan(directories, {}, itertools.count(2).__next__, frozen=False).found
        finally:
            directories.close()
    except OSError as exc:
        raise StorageError(f"cannot read {root}: {exc.strerror}") from exc
    files = [one.status for one in found.values() if stat.S_ISREG(one.status.st_mode)]
    return sum(min(status.st_size, status.st_blocks * 512) for status in files)


def sync(*directories: Path) -> None:
    """Bring all that the file systems of `directories` hold in memory to their disks. Slow: seconds, where much was written.

    For a layer that has moved here: before the host that it came from deletes its own. Raises StorageError.
    """
    done: set[int] = set()
    for directory in directories:
        try:
            fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                if (device := os.fstat(fd).st_dev) not in done:
                    rawfs.sync_filesystem(fd)
                    done.add(device)
            finally:
                os.close(fd)
        except OSError as exc:
            raise StorageError(f"cannot bring {directory} to its disk: {exc}", hint="look at the disk: dmesg") from exc


def _topmost(lower: Sequence[Path], parts: Sequence[str]) -> os.stat_result | None:
    for layer in reversed(lower):
        try:
            status = layer.joinpath(*parts).lstat()
        except (FileNotFoundError, NotADirectoryError):
            continue
        if not stat.S_ISDIR(status.st_mode):
            raise StorageError(f"/{'/'.join(parts)} of the image is no directory", hint="fix the image")
        return status
    return None
