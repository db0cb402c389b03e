"""Writes files into the root of a stage: what COPY, ADD and WORKDIR do, without running anything.

`root` is an overlay, so directories on the way keep how they look below, and what is written ends up in the upper
directory. Paths are resolved by the kernel with `root` as "/"; the last name is never followed.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass

from agent.build import sources
from agent.build.sources import Everything, Matcher
from agent.errors import InvalidArgument
from agent.storage import rawfs

_COPY_BYTES = 1 << 24
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_MAX_DATABASE_BYTES = 16 << 20
_OCTAL = re.compile(r"[0-7]{1,5}")
_SYMBOLIC = re.compile(r"([ugoa]*)([-+=])([rwxXst]*)")


@dataclass(frozen=True, kw_only=True)
class Look:
    """How what is written shall look: None keeps the source's. `mode`: from the old mode and "is it a directory"."""

    owner: tuple[int, int] | None = None
    mode: Callable[[int, bool], int] | None = None


class Writer:
    """Writes below the open directory `root`, which stays the caller's. Methods raise OSError and InvalidArgument."""

    def __init__(self, root: int, look: Look, exclude: Matcher | None = None) -> None:
        self._root, self._look, self._exclude = root, look, exclude or Everything()

    def make_directory(self, path: str) -> None:
        """With those above it, 755, as far as they are not there."""
        os.close(self._directory(path))

    def take(self, tree: int, path: str, destination: str, *, into: bool) -> None:
        """Copy `path` of `tree`: of a directory, what is in it; a file to `destination`, or into it if `into` says so or
        if it is a directory.
        """
        fd = sources.open_path(tree, path)
        try:
            status = os.fstat(fd)
        finally:
            os.close(fd)
        if stat.S_ISDIR(status.st_mode):
            below = sources.open_path(tree, path, os.O_RDONLY | os.O_DIRECTORY)
            try:
                self._tree(below, destination, status)
            finally:
                os.close(below)
            return
        name = path.rpartition("/")[2]
        if self._exclude.matches(name):
            return
        parent, name = self._place(destination, name, into=into)
        try:
            if stat.S_ISREG(status.st_mode):
                source = sources.open_path(tree, path, os.O_RDONLY)
                try:
                    self._file(source, status, parent, name)
                finally:
                    os.close(source)
            else:
                self._special(status, parent, name)
        finally:
            os.close(parent)

    def write(self, name: str, content: bytes, destination: str, *, into: bool) -> None:
        """A here-document: 644 unless the look says otherwise."""
        parent, name = self._place(destination, name, into=into)
        try:
            self._clear(parent, name)
            fd = os.open(name, _CREATE, 0o600, dir_fd=parent)
            with open(fd, "wb") as file:
                file.write(content)
                file.flush()
                self._dress(fd, 0o644, (0, 0), directory=False)
        finally:
            os.close(parent)

    # ------------------------------------------------------------ trees

    def _tree(self, source: int, destination: str, status: os.stat_result) -> None:
        made = not self._is_directory(destination)
        target = self._directory(destination)
        times: dict[str, int] = {}  # of directories: set when nothing more is put into them
        try:
            for entry in sources.walk(source, "", self._exclude):
                parent = self._directory_below(target, entry.path.rpartition("/")[0])
                try:
                    self._entry(entry, parent)
                finally:
                    os.close(parent)
                if stat.S_ISDIR(entry.status.st_mode):
                    times[entry.path] = entry.status.st_mtime_ns
            for path, mtime_ns in reversed(times.items()):
                fd = self._directory_below(target, path)
                os.utime(fd, ns=(mtime_ns, mtime_ns))
                os.close(fd)
            if made:
                self._look_like(target, status, directory=True)
        finally:
            os.close(target)

    def _entry(self, entry: sources.Entry, parent: int) -> None:
        mode = entry.status.st_mode
        if stat.S_ISDIR(mode):
            try:
                os.mkdir(entry.name, 0o700, dir_fd=parent)
            except FileExistsError:
                if not stat.S_ISDIR(os.stat(entry.name, dir_fd=parent, follow_symlinks=False).st_mode):
                    raise InvalidArgument(
                        f"cannot put the directory {entry.path} where something else is",
                        hint="a symbolic link, such as /lib in new distributions: copy to what it leads to",
                    ) from None
            fd = os.open(entry.name, sources.DIRECTORY, dir_fd=parent)
            try:
                self._look_like(fd, entry.status, directory=True, own=sources.xattrs(sources.entry_place(entry)))
            finally:
                os.close(fd)
        elif stat.S_ISREG(mode):
            source = os.open(entry.name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=entry.parent)
            try:
                self._file(source, entry.status, parent, entry.name)
            finally:
                os.close(source)
        elif stat.S_ISLNK(mode):
            self._clear(parent, entry.name)
            os.symlink(os.readlink(entry.name, dir_fd=entry.parent), entry.name, dir_fd=parent)
            owner = self._look.owner or (entry.status.st_uid, entry.status.st_gid)
            os.chown(entry.name, *owner, dir_fd=parent, follow_symlinks=False)
            times = (entry.status.st_mtime_ns, entry.status.st_mtime_ns)
            os.utime(entry.name, ns=times, dir_fd=parent, follow_symlinks=False)
        else:
            self._special(entry.status, parent, entry.name)

    def _directory_below(self, top: int, path: str) -> int:
        """A directory that the walk has just made; resolved without following links."""
        fd = os.dup(top)
        for part in path.split("/") if path else ():
            try:
                below = os.open(part, sources.DIRECTORY, dir_fd=fd)
            except FileNotFoundError:  # the directory itself was excluded, what is in it was not
                os.mkdir(part, 0o755, dir_fd=fd)
                below = os.open(part, sources.DIRECTORY, dir_fd=fd)
            finally:
                os.close(fd)
            fd = below
        return fd

    # ------------------------------------------------------------ single files

    def _file(self, source: int, status: os.stat_result, parent: int, name: str) -> None:
        self._clear(parent, name)
        fd = os.open(name, _CREATE, 0o600, dir_fd=parent)
        try:
            while os.sendfile(fd, source, None, _COPY_BYTES):
                pass
            self._look_like(fd, status, directory=False, own=sources.xattrs(source))
        finally:
            os.close(fd)

    def _special(self, status: os.stat_result, parent: int, name: str) -> None:
        if stat.S_ISSOCK(status.st_mode):
            return
        self._clear(parent, name)
        os.mknod(name, stat.S_IFMT(status.st_mode) | 0o600, status.st_rdev, dir_fd=parent)
        os.chown(name, *(self._look.owner or (status.st_uid, status.st_gid)), dir_fd=parent, follow_symlinks=False)
        os.chmod(name, stat.S_IMODE(status.st_mode), dir_fd=parent)

    def _look_like(
        self, fd: int, status: os.stat_result, *, directory: bool, own: dict[str, bytes] | None = None
    ) -> None:
        self._dress(fd, stat.S_IMODE(status.st_mode), (status.st_uid, status.st_gid), directory=directory)
        for key, value in (own or {}).items():
            os.setxattr(fd, key, value)
        os.utime(fd, ns=(status.st_mtime_ns, status.st_mtime_ns))

    def _dress(self, fd: int, mode: int, owner: tuple[int, int], *, directory: bool) -> None:
        os.fchown(fd, *(self._look.owner or owner))
        os.fchmod(fd, self._look.mode(mode, directory) if self._look.mode else mode)

    @staticmethod
    def _clear(parent: int, name: str) -> None:
        """Make room for a file: another file goes, a directory stays and is an error."""
        try:
            existing = os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return
        if stat.S_ISDIR(existing.st_mode):
            raise InvalidArgument(f"cannot put a file where the directory {name} is")
        os.unlink(name, dir_fd=parent)

    # ------------------------------------------------------------ places

    def _place(self, destination: str, name: str, *, into: bool) -> tuple[int, str]:
        """The open directory and the name in it where a file goes."""
        if into or self._is_directory(destination):
            return self._directory(destination), name
        above, _, last = destination.rstrip("/").rpartition("/")
        if not last:
            raise InvalidArgument(f"{destination!r} is no place for a file")
        return self._directory(above), last

    def _is_directory(self, path: str) -> bool:
        try:
            os.close(rawfs.open_in_root(self._root, os.fsencode(path), os.O_RDONLY | os.O_DIRECTORY))
        except (FileNotFoundError, NotADirectoryError):
            return False
        return True

    def _directory(self, path: str) -> int:
        """A descriptor of the directory, made if it is not there, with those above it."""
        parts = [part for part in path.split("/") if part]
        fd = os.dup(self._root)
        for depth in range(1, len(parts) + 1):
            so_far = os.fsencode("/".join(parts[:depth]))
            try:
                below = rawfs.open_in_root(self._root, so_far, os.O_RDONLY | os.O_DIRECTORY)
            except FileNotFoundError:
                below = self._made(fd, parts[depth - 1])
            except OSError as exc:
                os.close(fd)
                if exc.errno == errno.ENOTDIR:
                    raise InvalidArgument(f"/{'/'.join(parts[:depth])} is no directory") from exc
                raise
            os.close(fd)
            fd = below
        return fd

    def _made(self, parent: int, name: str) -> int:
        try:
            os.mkdir(name, 0o755, dir_fd=parent)
            fd = os.open(name, sources.DIRECTORY, dir_fd=parent)
        except OSError as exc:
            os.close(parent)
            if exc.errno in (errno.EEXIST, errno.ENOTDIR, errno.ELOOP):
                raise InvalidArgument(f"{name} is a link that leads nowhere") from exc
            raise
        os.fchmod(fd, 0o755)
        os.fchown(fd, *(self._look.owner or (0, 0)))
        return fd


def owner(text: str, root: int) -> tuple[int, int] | None:
    """Ids of --chown, by the /etc/passwd and /etc/group in `root`. Raises InvalidArgument."""
    if not text:
        return None
    user, _, group = text.partition(":")
    uid, gid = _user(user, root)
    if group:
        gid = int(group) if group.isdigit() else _entry(root, "etc/group", group, text)[0]
    return uid, gid


def mode(text: str) -> Callable[[int, bool], int] | None:
    """Of --chmod: "755" or "u=rwX,go=rX". Raises InvalidArgument."""
    if not text:
        return None
    if _OCTAL.fullmatch(text) and int(text, 8) <= 0o7777:
        return lambda _mode, _directory: int(text, 8)
    clauses = [_SYMBOLIC.fullmatch(part) for part in text.split(",")]
    if not all(clauses):
        raise InvalidArgument(f"--chmod takes a mode such as 755 or u=rwX,go=rX, not {text!r}")
    return lambda before, directory: _apply([c.groups() for c in clauses if c], before, directory=directory)


def _apply(clauses: list[tuple[str, ...]], mode_: int, *, directory: bool) -> int:
    for who, operator, letters in clauses:
        bits = special = 0
        for letter in letters:
            if letter in "rwx":
                bits |= {"r": 4, "w": 2, "x": 1}[letter]
            elif letter == "X" and (directory or mode_ & 0o111):
                bits |= 1
            elif letter == "t":
                special |= 0o1000
        everyone = not who or "a" in who
        shifts = [shift for name, shift in (("u", 6), ("g", 3), ("o", 0)) if everyone or name in who]
        if "s" in letters:
            special |= (0o4000 if everyone or "u" in who else 0) | (0o2000 if everyone or "g" in who else 0)
        changed = special | sum(bits << shift for shift in shifts)
        if operator == "=":
            mode_ = (mode_ & ~sum(7 << shift for shift in shifts)) | changed
        else:
            mode_ = mode_ | changed if operator == "+" else mode_ & ~changed
    return mode_


def _user(user: str, root: int) -> tuple[int, int]:
    if user.isdigit():
        return int(user), int(user)
    uid, gid = _entry(root, "etc/passwd", user, user)[:2]
    return uid, gid


def _entry(root: int, file: str, name: str, text: str) -> tuple[int, ...]:
    """The numbers of a line of passwd (uid, gid) or group (gid)."""
    try:
        fd = rawfs.open_in_root(root, os.fsencode(file), os.O_RDONLY | os.O_NONBLOCK)
    except FileNotFoundError:
        lines = []
    else:
        with open(fd, "rb") as database:
            lines = database.read(_MAX_DATABASE_BYTES).decode(errors="surrogateescape").splitlines()
    for line in lines:
        fields = line.split(":")
        if fields[0] == name and len(fields) > 3:
            return tuple(int(number) for number in fields[2:4] if number.isdigit())
    raise InvalidArgument(f"--chown={text}: {name!r} is not in the image's /{file}", hint="use a number")
