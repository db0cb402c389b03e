"""Reads or writes the files of one container from outside: `python -I -S reach.py PACKAGE_ROOT FD`, a process a copy.

    agent                                   this process
      request {verb, root, ...} + a pipe ->   gets hold of the container's root, becomes root of the container
      <----------------- source {...}         copy-out: what is there
      <======================= tar ========   copy-out, export: through the pipe
      ======= tar ========================>   copy-in
      end, or abort --------------------->    copy-in: all of it was sent, or it was cut off
      <------------------- done {...}         or error {errno, text}, instead of any of these

FD is a SOCK_SEQPACKET socket with `sync.py`'s messages. This process acts in the container's user namespace with the container's ids and no
privilege over the host, and reaches the files by a descriptor of the container's root, in which the kernel resolves every path
(openat2). Its own root stays the host's: whatever Python or the C library may load, nothing of it comes from the container. It is in no
pid namespace, cgroup or terminal of the container, which cannot see it. Single thread, standard library only.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])  # -I keeps the script's folder and the environment out of sys.path

import dataclasses
import errno
import io
import os
import resource
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from agent.engine import rootfs, sync
from agent.filetree import pack, paths, place
from agent.linux import mounts, namespaces, process

PIPE_BYTES = 1 << 20
_MEMORY_BYTES = 2 << 30  # a hostile tar has headers of any size
_FILE_CAPABILITIES = ("CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_SETFCAP")
_ROOT = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


def main() -> int:
    channel = socket.socket(fileno=int(sys.argv[2]))
    os.set_inheritable(channel.fileno(), False)
    request, fds = sync.receive(channel)
    if request is None:
        return 1
    try:
        _limit()
        answer = _VERBS[request["verb"]](request, _enter(request["root"]), fds[0], channel)
    except BrokenPipeError:
        return 1  # nobody is there any more
    except paths.Misfit as exc:
        answer = {"type": "error", "errno": 0, "text": str(exc)}
    except MemoryError:
        answer = {"type": "error", "errno": errno.ENOMEM, "text": "the tar has a header too large to be read"}
    except OSError as exc:
        name = os.fsdecode(exc.filename) if isinstance(exc.filename, bytes) else exc.filename
        text = f"{exc.strerror or exc}" + (f": {name}" if name else "")
        answer = {"type": "error", "errno": exc.errno or errno.EIO, "text": text}
    for fd in fds:
        os.close(fd)  # the agent reads to its end first
    try:
        sync.send(channel, answer)
        while (
            sync.receive(channel)[0] is not None
        ):  # what is not read when this process goes would take the answer with it
            pass
    except (BrokenPipeError, ConnectionResetError):
        return 1
    return 0 if answer["type"] == "done" else 1


# ------------------------------------------------------------ the container's root


def _limit() -> None:
    signal.signal(signal.SIGTERM, _stop)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # one descriptor a directory on the way down
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY_BYTES, _MEMORY_BYTES))
    os.umask(0)


def _stop(_number: int, _frame: object) -> NoReturn:
    raise SystemExit(1)  # what is under way is tidied up


def _enter(root: dict[str, Any]) -> int:
    """Returns a descriptor of the root; afterwards this process is the container's root user."""
    kind = root["kind"]
    if kind == "stopped":
        fd = _mount(root)
        userns = namespaces.userns_fd(root["ids_base"], root["ids_count"])
    else:
        pid = root["pid"]
        userns = os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        # The root as its processes see it, with all that is mounted in it; or the overlay alone, as a mount of its own.
        fd = os.open(f"/proc/{pid}/root", _ROOT) if kind == "live" else mounts.open_tree(Path(root["path"]))
        if process.start_ticks(pid) != root["start_ticks"]:  # after the look: all of it was the same process
            raise OSError(errno.ESRCH, f"process {pid} is not the container's init any more")
    if os.fstat(userns).st_ino == Path("/proc/self/ns/user").stat().st_ino:
        # A container without a user namespace of its own: its root is the host's, without most of what that may do.
        process.drop_bounding(_FILE_CAPABILITIES)
        process.set_capabilities(permitted=_FILE_CAPABILITIES, effective=_FILE_CAPABILITIES)
    else:
        namespaces.setns(userns, namespaces.CLONE_NEWUSER)
        os.setgroups(())
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
    os.close(userns)
    process.set_dumpable(False)  # nobody without privilege over the host may trace it
    return fd


def _mount(root: dict[str, Any]) -> int:
    """Of a container without processes: its overlay, in a mount namespace that goes with this process."""
    namespaces.unshare(namespaces.CLONE_NEWNS)
    mounts.make_private(Path("/"))
    mount = rootfs.mount_root if root["writable"] else rootfs.mount_read_only
    target = Path(root["target"])
    mount(
        layers=[Path(layer) for layer in root["layers"]],
        writable=Path(root["layer"]),
        target=target,
        ids_base=root["ids_base"],
        ids_count=root["ids_count"],
        binds=root["binds"],
    )
    fd = os.open(target, _ROOT)
    if root["writable"] and root["read_only"]:  # what is mounted in it may be writable all the same
        mounts.mount_setattr(fd, attr_set=mounts.MOUNT_ATTR_RDONLY)
    return fd


# ------------------------------------------------------------ verbs


def _copy_out(request: dict[str, Any], root: int, pipe: int, channel: socket.socket) -> dict[str, Any]:
    located, what = paths.source(root, os.fsencode(request["path"]), follow=request["follow"])
    with located:
        name, target = os.fsdecode(what.name), os.fsdecode(what.link_target)
        message = {"type": "source", **dataclasses.asdict(what), "name": name, "link_target": target}
        sync.send(channel, message)
        return _write(pack.tree(located.parent, located.name, what.name), pipe)


def _export(_request: dict[str, Any], root: int, pipe: int, _channel: socket.socket) -> dict[str, Any]:
    return _write(pack.tree(root, b".", b""), pipe)


def _write(pieces: Iterator[bytes], pipe: int) -> dict[str, Any]:
    for piece in pieces:
        rest = memoryview(piece)
        while rest:
            rest = rest[os.write(pipe, rest) :]
    return {"type": "done"}


def _copy_in(request: dict[str, Any], root: int, pipe: int, channel: socket.socket) -> dict[str, Any]:
    given = request["source"]
    what = paths.Source(name=os.fsencode(given["name"]), mode=given["mode"]) if given else None
    with (
        paths.destination(root, os.fsencode(request["path"]), what) as where,
        open(pipe, "rb", buffering=0, closefd=False) as tar,
    ):
        _refuse_read_only(where)
        placed = place.members(_Whole(tar, channel), where, place.Owner(request["owner"]), root=root)
        return {"type": "done", **dataclasses.asdict(placed)}


def _refuse_read_only(where: paths.Destination) -> None:
    if os.fstatvfs(where.directory).f_flag & os.ST_RDONLY:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), os.fsdecode(where.text))


class _Whole:
    """The tar in the pipe. Its end counts only where the agent says that it is the end: a file of which a part came must not stay."""

    def __init__(self, tar: io.FileIO, channel: socket.socket) -> None:
        self._tar, self._channel, self._ended = tar, channel, False

    def read(self, size: int, /) -> bytes:
        data = b"" if self._ended else self._tar.read(size)
        if not data and size and not self._ended:
            self._ended = True
            if (sync.receive(self._channel)[0] or {}).get("type") != "end":
                raise BrokenPipeError(errno.EPIPE, "the tar was cut off")
        return data


_VERBS = {"copy-out": _copy_out, "copy-in": _copy_in, "export": _export}


if __name__ == "__main__":
    sys.exit(main())
