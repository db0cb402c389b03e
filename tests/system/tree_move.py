"""A layer on its way from one directory to another, and what a container may do to it meanwhile."""

from __future__ import annotations

import ctypes
import os
import socket
import stat
import struct
import subprocess
from pathlib import Path

from hypothesis import strategies as st

from agent.storage.tree import TreeSource, TreeTarget
from tests.system import strict_tree

_libc = ctypes.CDLL(None, use_errno=True)
NOT_RACY_S = 0.08  # longer than the margin in which the source distrusts timestamps
CAPABILITY = struct.pack("<IIIII", 0x02000001, 0x400, 0, 0, 0)  # cap_net_bind_service=ep


def acl(user: int, bits: int) -> bytes:
    """An access ACL with one named user, as the kernel stores it."""
    entries = [(0x01, 6, -1), (0x02, bits, user), (0x04, 4, -1), (0x10, 6, -1), (0x20, 4, -1)]
    return struct.pack("<I", 2) + b"".join(
        struct.pack("<HHI", tag, perm, who & 0xFFFFFFFF) for tag, perm, who in entries
    )


def punch(path: Path, offset: int, length: int) -> None:
    fd = os.open(path, os.O_RDWR)
    try:
        if _libc.fallocate(fd, 3, ctypes.c_int64(offset), ctypes.c_int64(length)):
            raise OSError(ctypes.get_errno(), "fallocate")
    finally:
        os.close(fd)


class Move:
    """A source and a target directory, and the rounds between them."""

    def __init__(self, base: Path, *, watch: bool = False) -> None:
        self.upper, self.copy = base / "source" / "upper", base / "target" / "upper"
        self.upper.mkdir(parents=True)
        self.copy.mkdir(parents=True)
        self.source, self.target = TreeSource(self.upper, watch=watch), TreeTarget(self.copy)
        assert self.source.watched == watch, "fanotify of a whole file system is refused here"

    def close(self) -> None:
        self.source.close()
        self.target.close()

    def round(
        self, *, always: set[tuple[int, int]] | frozenset[tuple[int, int]] = frozenset(), last: bool = False
    ) -> int:
        """Bytes sent."""
        total = 0
        for frame in self.source.delta(always, last=last):
            assert len(frame) <= 1 << 20
            total += len(frame)
            self.target.apply(frame)
        return total

    def finish(self, **kwargs: object) -> int:
        sent = self.round(last=True, **kwargs)  # type: ignore[arg-type]
        assert self.source.digest() == self.target.finish()
        return sent

    def differences(self) -> list[str]:
        return strict_tree.differences(strict_tree.read(self.upper), strict_tree.read(self.copy))


NAMES = ["a", "b", "c", "d\ne", b"\xff\xfe".decode("utf-8", "surrogateescape"), "x" * 255]
number = st.integers(0, 1 << 30)
ACTS = (
    "create", "write", "write", "extend", "truncate", "grow", "punch", "rename", "rename", "swap", "link", "unlink", "rmtree",
    "mkdir", "chmod", "chown", "xattr", "delxattr", "acl", "delacl", "capability", "whiteout", "opaque", "mknod", "fifo",
    "socket", "symlink", "mtime", "replace",
)  # fmt: skip
operation = st.tuples(
    st.sampled_from(ACTS),
    number,
    number,
    number,
)


def paths(root: Path) -> list[Path]:
    return [root, *sorted(root.rglob("*"))]


def act(root: Path, what: str, i: int, j: int, k: int) -> None:
    """One change; impossible ones do nothing."""
    everything = paths(root)
    path = everything[i % len(everything)]
    directories = [p for p in everything if p.is_dir() and not p.is_symlink()]
    files = [p for p in everything if p.is_file() and not p.is_symlink()]
    new = directories[j % len(directories)] / NAMES[k % len(NAMES)]
    file = files[i % len(files)] if files else None
    size = file.stat().st_size if file else 0
    try:
        if what == "create":
            with new.open("xb") as handle:  # never into a fifo or a device that is there already
                handle.write(bytes([k % 251]) * (j % 300_000))
        elif what in ("write", "extend") and file:
            with file.open("r+b") as handle:
                handle.seek(j % (size + 1) if what == "write" else size + j % 200_000)
                handle.write(bytes([k % 251]) * (k % 100_000 + 1))
        elif what == "truncate" and file:
            os.truncate(file, j % (size + 1))
        elif what == "grow" and file:
            os.truncate(file, size + j % 300_000)
        elif what == "punch" and file and size:
            punch(file, j % size, k % size + 1 if k % 2 else 1 << 20)  # the second: over the end of the file
        elif what == "rename" and path != root:
            path.rename(new)
        elif what == "swap" and path != root and new.exists() and path != new:
            temp = root / "swap-temp"
            path.rename(temp)
            try:
                new.rename(path)
            except OSError:
                temp.rename(path)
                raise
            temp.rename(new if new.parent.exists() else root / "swapped")
        elif what == "link":
            os.link(path, new, follow_symlinks=False)
        elif what == "unlink" and path != root:
            path.unlink()
        elif what == "rmtree" and path != root:
            subprocess.run(
                ["rm", "-rf", str(path)] if path.is_dir() and not path.is_symlink() else ["true"], check=True
            )
        elif what == "mkdir":
            new.mkdir(mode=0o700)
        elif what == "chmod" and not path.is_symlink():
            path.chmod(k & 0o7777)
        elif what == "chown":
            os.chown(path, j % 70_000, k % 70_000, follow_symlinks=False)
        elif what == "xattr":
            name = ["user.note", "trusted.note", "security.note"][k % 3]
            os.setxattr(path, name, bytes([j % 256]) * (k % 500), follow_symlinks=False)
        elif what == "delxattr":
            for name in os.listxattr(path, follow_symlinks=False):
                os.removexattr(path, name, follow_symlinks=False)
        elif what == "acl" and not path.is_symlink():
            os.setxattr(
                path, f"system.posix_acl_{'default' if path.is_dir() and k % 2 else 'access'}", acl(j % 9, k % 8)
            )
        elif what == "delacl":
            os.removexattr(path, "system.posix_acl_access", follow_symlinks=False)
        elif what == "capability" and file:
            os.setxattr(file, "security.capability", CAPABILITY)
        elif what == "whiteout":
            os.mknod(new, stat.S_IFCHR, 0)
        elif what == "opaque" and path.is_dir() and not path.is_symlink():
            os.setxattr(path, "trusted.overlay.opaque", b"y")
        elif what == "mknod":
            # Above 511 no driver can be registered: these lead to no device of this machine.
            os.mknod(new, [stat.S_IFCHR, stat.S_IFBLK][k % 2] | 0o640, os.makedev(600 + j % 300, k % 70_000))
        elif what == "fifo":
            os.mkfifo(new)
        elif what == "socket":
            os.mknod(new, stat.S_IFSOCK | 0o600)
        elif what == "symlink":
            new.symlink_to(f"../{NAMES[i % 4]}/{k}")
        elif what == "mtime":
            os.utime(path, ns=(j * 3, (k - (1 << 29)) * 1_000_000_007), follow_symlinks=False)
        elif what == "replace" and file:  # the same names and size, other bytes, and the old time: what rsync -t leaves
            times = file.stat()
            other = root / "replacement"
            other.write_bytes(bytes([k % 251]) * size)
            os.utime(other, ns=(times.st_atime_ns, times.st_mtime_ns))
            other.rename(file)
    except (OSError, ValueError):
        pass


def populate(root: Path) -> None:
    """One of everything."""
    (root / "file").write_bytes(b"hello")
    (root / "empty").touch()
    setuid = root / "setuid"
    setuid.write_bytes(b"#!")
    os.chown(setuid, 1000, 1001)
    setuid.chmod(0o6755)
    (root / "capable").write_bytes(b"x")
    os.setxattr(root / "capable", "security.capability", CAPABILITY)
    os.setxattr(root / "file", "user.note", b"\x00\xff" * 100)
    os.setxattr(root / "file", "trusted.note", b"")
    os.setxattr(root / "file", "system.posix_acl_access", acl(7, 5))
    (root / "gone").touch()
    (root / "gone").unlink()
    os.mknod(root / "gone", stat.S_IFCHR, 0)
    (root / "opaque").mkdir()
    os.setxattr(root / "opaque", "trusted.overlay.opaque", b"y")
    os.setxattr(root / "opaque", "system.posix_acl_default", acl(7, 7))
    (root / "sticky").mkdir()
    (root / "sticky").chmod(0o3777)
    os.chown(root / "sticky", 5, 6)
    (root / "sticky" / "inherits-the-group").touch()
    os.mknod(root / "block", stat.S_IFBLK | 0o660, os.makedev(8, 17))
    os.mknod(root / "char", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mkfifo(root / "fifo")
    with socket.socket(socket.AF_UNIX) as listener:
        before = Path.cwd()
        os.chdir(root)  # the path of a socket is short
        try:
            listener.bind("socket")
        finally:
            os.chdir(before)
    (root / "link").symlink_to("/etc/\xe9/../nowhere")
    os.chown(root / "link", 42, 43, follow_symlinks=False)
    os.setxattr(root / "link", "trusted.onlink", b"1", follow_symlinks=False)
    os.link(root / "link", root / "second-name-of-the-link", follow_symlinks=False)
    os.link(root / "gone", root / "gone-too")  # overlayfs shares one inode among whiteouts
    os.link(root / "file", root / "sticky" / "other-name")
    for name in (b"new\nline", b"\xff\xfe\x01", b"n" * 255, b" ", b"\\", "é".encode()):
        Path(os.fsdecode(bytes(root) + b"/" + name)).write_bytes(name)
    with (root / "sparse").open("wb") as file:
        file.seek(5 << 20)
        file.write(b"island")
        file.truncate(1 << 40)
    (root / "old").touch()
    os.utime(root / "old", ns=(1, -123_456_789_123_456_789))
    os.utime(root / "link", ns=(5, 1_234_567_890_987_654_321), follow_symlinks=False)
    os.utime(root / "opaque", ns=(5, 987_654_321))
    os.utime(root, ns=(7, 11_000_000_013))
    root.chmod(0o751)
