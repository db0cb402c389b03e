"""A monitor reduced to what `engine/init.py` needs of one: mounts the root, forks the stage, writes its id maps, reaps.

Run as `python -I -S small_monitor.py PACKAGE_ROOT FD` with the plan as the first message on FD. Everything that the stage and init say
is passed on as it comes; then `{"type": "exit", "status"}`. The test answers `start` itself. On end of file init is killed.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys

sys.path.insert(0, sys.argv[1])

from pathlib import Path

from agent.engine import init, rootfs, sync
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
        return watch(plan, test, stdio)
    finally:
        mounts.unmount_all(target)


def watch(plan: init.Plan, test: socket.socket, stdio: list[int]) -> int:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    stage = os.fork()
    if stage == 0:
        test.close()
        ours.close()
        init.run_stage(plan, theirs, (stdio[0], stdio[1], stdio[2]))
    theirs.close()
    for fd in stdio:
        os.close(fd)
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
            sync.send(ours, command)
        if ours in readable:
            message, _ = sync.receive(ours)
            if message is None:
                open_channel = False
                sync.send(test, {"type": "eof"})
            elif message["type"] == "userns":
                namespaces.write_id_maps(stage, plan["ids_base"], plan["ids_count"])
                sync.send(ours, {"type": "mapped"})
            else:
                pid = message.get("pid", pid)
                sync.send(test, message)
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


if __name__ == "__main__":
    sys.exit(main())
