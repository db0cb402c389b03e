"""A monitor reduced to what `engine/init.py` needs of one: mounts the root, forks the stage, admits init, reaps.

Run as `python -I -S small_monitor.py PACKAGE_ROOT FD` with the plan as the first message on FD. Everything that the stage and init say
is passed on as it comes; then `{"type": "exit", "status"}`. The test answers `start` itself. On end of file init is killed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import select
import signal
import socket
import sys

sys.path.insert(0, sys.argv[1])

from pathlib import Path

from agent.engine import init, monitor_start, program, rootfs, sync
from agent.linux import mounts, namespaces, process


def main() -> int:
    process.set_child_subreaper()
    test = socket.socket(fileno=int(sys.argv[2]))
    request, stdio = sync.receive(test)
    assert request is not None
    plan = request["plan"]
    target = Path(request["mount_at"])  # plan["root"], unless the test breaks that on purpose
    rootfs.mount_root(
        layers=[Path(layer) for layer in request["layers"]],
        writable=Path(request["writable"]),
        target=target,
        ids_base=plan["ids_base"],
        ids_count=plan["ids_count"],
    )
    try:
        return watch(plan, request["cgroup"], test, stdio)
    finally:
        mounts.unmount_all(target)


def watch(plan: init.Plan, cgroup: str, test: socket.socket, stdio: list[int]) -> int:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    stage = os.fork()
    if stage == 0:
        test.close()
        ours.close()
        init.run_stage(theirs, init.stage_flags(plan))
    theirs.close()
    pid, status = 0, None
    open_channel = True
    while True:
        readable = select.select([test, ours] if open_channel else [test], [], [], 0.02)[0]
        if test in readable:
            command, _ = sync.receive(test)
            if command is None:
                if pid:
                    os.kill(pid, signal.SIGKILL)
                return 0
            with contextlib.suppress(BrokenPipeError):  # init has ended: why, it has said
                sync.send(ours, command)
        if ours in readable:
            try:
                message, fds = sync.receive(ours)
            except ConnectionResetError:  # it went with the plan unread
                message, fds = None, []
            if message is None:
                open_channel = False
                sync.send(test, {"type": "eof"})
                continue
            sync.send(test, message, fds)
            for fd in fds:
                os.close(fd)
            if message["type"] == "waiting":
                try:
                    namespaces.write_id_maps(stage, plan["ids_base"], plan["ids_count"])
                    sync.send(ours, {"type": "fork", "cgroup": cgroup})
                except OSError as exc:
                    sync.send(test, {"type": "error", "step": "userns", "errno": exc.errno or 0, "text": str(exc)})
                    os.kill(stage, signal.SIGKILL)
            if message["type"] == "created":
                pid = message["pid"]
                _become(plan, pid, ours, test, (stdio[0], stdio[1], stdio[2]))
        while True:
            try:
                ended, code = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                ended = -1
            if ended <= 0:
                break
            if ended == pid:
                status = os.waitstatus_to_exitcode(code)
        if not open_channel and (status is not None or ended == -1):
            sync.send(test, {"type": "exit", "status": status})
            return 0


def _become(
    plan: init.Plan, pid: int, channel: socket.socket, test: socket.socket, stdio: tuple[int, int, int]
) -> None:
    """Init becomes the container's, or the test hears why not and init ends."""
    try:
        monitor_start.admit(plan, pid, stdio)
        with program.step("root"):
            root = os.open(plan["root"], os.O_PATH | os.O_DIRECTORY)
        sync.send(channel, {"type": "plan", "plan": plan}, [root, *stdio])
        os.close(root)
    except program.StepError as exc:
        sync.send_error(test, exc.step, exc)
        os.kill(pid, signal.SIGKILL)
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as exc:
        sync.send(test, {"type": "error", "step": "plan", "errno": errno.EINVAL, "text": repr(exc)})
        os.kill(pid, signal.SIGKILL)
    for fd in stdio:
        os.close(fd)


if __name__ == "__main__":
    sys.exit(main())
