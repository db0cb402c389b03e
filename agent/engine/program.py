"""From a process inside a container's namespaces to the program that somebody asked for: user, directory, privileges,
execve.

Shared by the first process (`init.py`) and by `exec` (`enter.py`), so that both mean the same by a user, an
environment and a PATH. Everything is looked up in the container's own files; the libc's user database is never asked,
for it would load the image's libraries. Standard library only, and nothing is imported late: the host's files are out
of sight here.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import signal
import stat
import termios
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from agent.engine import rlimits
from agent.linux import process, seccomp

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
TTY_GID = 5  # of /dev/pts/N, on every distribution
MAX_DATABASE_BYTES = 16 << 20


class StepError(OSError):
    """An OSError that knows which step it stopped."""

    def __init__(self, step: str, number: int, text: str) -> None:
        super().__init__(number, text)
        self.step = step


@dataclass(frozen=True, kw_only=True)
class User:
    """Ids inside the container."""

    uid: int
    gid: int
    groups: tuple[int, ...] = ()
    home: str = "/"
    name: str = ""


@dataclass(frozen=True, kw_only=True)
class Program:
    """What to become. `env`: "KEY=value"; `user`: "", "name", "uid", "name:group", "uid:gid"; `capabilities`: the
    bounding set.
    """

    argv: tuple[str, ...]
    env: tuple[str, ...]
    cwd: str
    user: str
    capabilities: tuple[str, ...]
    tty: bool = False
    hostname: str = ""
    rlimits: Mapping[str, Sequence[int]] = field(default_factory=dict)  # "RLIMIT_NOFILE": [soft, hard]
    seccomp: bytes = b""  # the program of its filter; b"" = none
    new_privileges: bool = False
    groups: tuple[str, ...] = ()  # besides the user's: names or numbers
    umask: int = 0o022

    @classmethod
    def of(cls, what: Mapping[str, Any], seccomp_filter: bytes) -> Program:
        """From init's plan or a session's request: their keys of these names. Raises KeyError."""
        return cls(
            argv=tuple(what["argv"]),
            env=tuple(what["env"]),
            cwd=what["cwd"],
            user=what["user"],
            capabilities=tuple(what["capabilities"]),
            tty=what["tty"],
            hostname=what["hostname"],
            rlimits=what["rlimits"],
            seccomp=seccomp_filter,
            new_privileges=what.get("new_privileges", False),
            groups=tuple(what.get("groups", ())),
            umask=what.get("umask", 0o022),
        )


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """A program of which only the last steps are left: of prepare(), for become() in the same process."""

    program: Program
    user: User
    env: dict[str, str]


def read_filter(what: Mapping[str, Any]) -> bytes:
    """The seccomp filter that init's plan or a session's request names: a file of the host, read while it is in sight. Raises
    OSError; a container is never without the filter that it was to have.
    """
    path = what.get("seccomp", "")
    return Path(path).read_bytes() if path else b""


def resolve_user(text: str, root: Path = Path("/"), further: Sequence[str] = ()) -> User:
    """Find `text` in `root`'s /etc/passwd and /etc/group, by Docker's rules.

    A number needs no entry: then the group is 0 and the home "/". A group given after the colon means: no further
    groups but those of `further`. Raises StepError("user") with ENOENT for a name that is not there, EINVAL for an id that no map can hold.
    """
    name, colon, group = text.partition(":")
    name = name or "0"
    entries = _database(root / "etc/passwd", 7)
    entry = next((e for e in entries if e[0] == name), None)
    if entry is None and _is_id(name):
        entry = next((e for e in entries if e[2] == name), None)
    if entry is not None and _is_id(entry[2]) and _is_id(entry[3]):
        user = User(uid=_id(entry[2]), gid=_id(entry[3]), home=entry[5] or "/", name=entry[0])
    elif _is_id(name):
        user = User(uid=_id(name), gid=0)
    else:
        raise StepError("user", errno.ENOENT, f"no user {name!r} in the image's /etc/passwd")
    groups = _database(root / "etc/group", 4)

    def gid_of(group: str) -> int:
        match = next((g for g in groups if g[0] == group and _is_id(g[2])), None)
        if match is None and not _is_id(group):
            raise StepError("user", errno.ENOENT, f"no group {group!r} in the image's /etc/group")
        return _id(match[2] if match else group)

    also = {gid_of(name) for name in further}
    gid = gid_of(group) if colon and group else user.gid
    if not (colon and group):
        also |= {_id(g[2]) for g in groups if user.name and user.name in g[3].split(",") and _is_id(g[2])}
    return User(uid=user.uid, gid=gid, groups=tuple(sorted(also)), home=user.home, name=user.name)


def environment(program: Program, user: User) -> dict[str, str]:
    """`program.env` and, where it does not say, PATH, HOME, HOSTNAME and, with a terminal, TERM."""
    values = {"PATH": DEFAULT_PATH, "HOME": user.home}
    if program.hostname:
        values["HOSTNAME"] = program.hostname
    if program.tty:
        values["TERM"] = "xterm"
    for item in program.env:
        key, equals, value = item.partition("=")
        if key and equals:
            values[key] = value
    return values


def give_stdio(stdio: Sequence[int], uid: int, gid: int) -> None:
    """Make pipes and terminals the user's own, or opening /dev/stdout again is refused. Devices and files stay whose
    they are.
    """
    for fd in set(stdio):
        if os.isatty(fd):
            os.fchown(fd, uid, gid)
            os.fchmod(fd, 0o620)
        elif stat.S_ISFIFO(os.fstat(fd).st_mode):
            os.fchown(fd, uid, gid)


def take_stdio(stdio: tuple[int, int, int], *, tty: bool) -> None:
    """Put the descriptors at 0, 1 and 2; with `tty`, make the terminal this session's own (the caller leads a
    session).
    """
    high = [fcntl.fcntl(fd, fcntl.F_DUPFD, 10) for fd in stdio]
    for number, fd in enumerate(high):
        os.dup2(fd, number)
        os.close(fd)
    if tty:
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def close_others(keep: int) -> None:
    """Close every descriptor from 3 on but `keep`, which is closed by execve."""
    os.set_inheritable(keep, False)
    os.closerange(3, keep)
    os.closerange(keep + 1, 1 << 30)


def prepare(program: Program) -> Prepared:
    """In the container's root, as its root with every capability in it: all that needs neither stdio nor the cgroups, so that init does it
    while others make those. become() follows. Raises StepError.
    """
    user = resolve_user(program.user, further=program.groups)
    env = environment(program, user)
    with step("cwd"):
        cwd = program.cwd or "/"
        with contextlib.suppress(FileExistsError):  # no directory: chdir says it better
            Path(cwd).mkdir(mode=0o755, parents=True, exist_ok=True)
        os.chdir(cwd)
    with step("capabilities"):
        process.drop_bounding(program.capabilities)
        process.clear_ambient()
    with step("signals"):
        reset_signals()
        os.umask(program.umask)
    return Prepared(program=program, user=user, env=env)


def become(prepared: Prepared) -> NoReturn:
    """Turn this process into the program. Returns only by StepError."""
    program, user = prepared.program, prepared.user
    with step("stdio"):
        give_stdio((0, 1, 2), user.uid, TTY_GID if program.tty else user.gid)
    with step("seccomp"):
        if program.seccomp and program.new_privileges:  # only CAP_SYS_ADMIN may, which is about to go
            seccomp.install(program.seccomp)
    with step("user"):
        os.setgroups(user.groups)
        os.setresgid(user.gid, user.gid, user.gid)
        os.setresuid(user.uid, user.uid, user.uid)
    with step("capabilities"):
        allowed = program.capabilities if user.uid == 0 else ()
        process.set_capabilities(permitted=allowed, effective=allowed)
        if not program.new_privileges:
            process.set_no_new_privileges()
    with step("limits"):
        rlimits.set_all(program.rlimits)
    with step("seccomp"):
        if program.seccomp and not program.new_privileges:
            seccomp.install(program.seccomp)
    _execute(program.argv, prepared.env)


def reset_signals() -> None:
    """Default action for every signal, none blocked: Python ignores SIGPIPE, and a parent may have blocked some."""
    for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        if number not in (32, 33):  # the C library's own
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _execute(argv: Sequence[str], env: Mapping[str, str]) -> NoReturn:
    """execve, looking through the PATH of `env`. ENOENT: nowhere; EACCES: found but not to be executed."""
    if not argv or not argv[0]:
        raise StepError("exec", errno.ENOENT, "no program given")
    name = argv[0]
    candidates = [name] if "/" in name else [f"{part or '.'}/{name}" for part in env["PATH"].split(":")]
    refused: OSError | None = None
    for candidate in candidates:
        try:
            os.execve(candidate, list(argv), dict(env))  # noqa: S606  # a shell is the last thing wanted here
        except OSError as exc:
            if exc.errno in (errno.ENOENT, errno.ENOTDIR):
                continue
            refused = refused or exc
            if exc.errno != errno.EACCES:
                break
        except ValueError as exc:  # a zero byte in an argument
            raise StepError("exec", errno.EINVAL, str(exc)) from exc
    if refused is not None:
        raise StepError("exec", refused.errno or 0, f"{name}: {refused.strerror}") from refused
    where = "" if "/" in name else f" in PATH={env['PATH']}"
    raise StepError("exec", errno.ENOENT, f"{name}: no such file{where}")


def _database(path: Path, fields: int) -> list[list[str]]:
    """The lines of a passwd or group file that have enough fields; an image without the file has none."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a fifo must not hold us up
    except OSError:
        return []
    with open(fd, "rb") as file:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return []
        text = file.read(MAX_DATABASE_BYTES).decode(errors="surrogateescape")
    lines = (line.split(":") for line in text.splitlines())
    return [line for line in lines if len(line) >= fields]


def _is_id(text: str) -> bool:
    return text.isascii() and text.isdigit()


def _id(text: str) -> int:
    number = int(text)
    if number >= 1 << 31:
        raise StepError("user", errno.EINVAL, f"id {text} is out of range")
    return number


@contextlib.contextmanager
def step(name: str) -> Iterator[None]:
    """Give an OSError from inside the block the name of the step."""
    try:
        yield
    except StepError:
        raise
    except OSError as exc:
        where = f": {exc.filename}" if exc.filename else ""
        raise StepError(name, exc.errno or 0, f"{exc.strerror or exc}{where}") from exc
