"""A program inside a running container: `python -I -S enter.py PACKAGE_ROOT FD`, one process a session, started by
the agent.

    agent                                  this process                         child
      request {pid, argv, ...} + stdio ->    setns into the container
      <------ tty {} + master (with tty)     fork -------------------------->   joins the cgroups, setsid, user,
      <------------------ started {pid} <-------------- end of file ---------   execve
      <------- error {step, errno, text} <-------------- error --------------   or not
      signal {signal} ------------------->   to the child
      kill {} --------------------------->   SIGKILL to its process group
      <---------------- exit {exit_code}     waitpid

FD is a SOCK_SEQPACKET socket with `sync.py`'s messages. When the agent lets go of it the session is hung up: SIGHUP
to its process group, SIGKILL after a while. Without a tty the request carries the three descriptors; with one, the
terminal is made in the container's own devpts, so that it has a name there. A session is no child of the container's
init: CRIU neither sees nor dumps it, and a container with sessions must not be moved. Single thread, standard library
only.
"""

from __future__ import annotations

import sys

if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])  # -I keeps the script's folder and the environment out of sys.path

import errno
import os
import select
import signal
import socket
from pathlib import Path
from typing import NoReturn, NotRequired, TypedDict, cast

from agent.engine import program, rlimits, sync, terminal
from agent.engine.program import StepError, step
from agent.linux import keyring, namespaces, process

HANG_UP_GRACE_S = 5.0

_CONTAINER = (
    namespaces.CLONE_NEWUSER
    | namespaces.CLONE_NEWNS
    | namespaces.CLONE_NEWPID
    | namespaces.CLONE_NEWNET
    | namespaces.CLONE_NEWIPC
    | namespaces.CLONE_NEWUTS
    | namespaces.CLONE_NEWCGROUP
)


class Request(TypedDict):
    """One session. JSON."""

    pid: int  # of the container's init, on the host
    start_ticks: int  # field 22 of its /proc/PID/stat: another process with that pid is not entered
    cgroups: list[str]  # directories, one a hierarchy
    argv: list[str]
    env: list[str]
    cwd: str
    user: str
    capabilities: list[str]  # the bounding set
    hostname: str
    rlimits: dict[str, list[int]]
    oom_score_adj: int
    seccomp: NotRequired[str]  # a file with the program of the filter; "" = none
    new_privileges: NotRequired[bool]
    groups: NotRequired[list[str]]  # besides the user's
    umask: NotRequired[int]
    tty: bool
    rows: int  # of the terminal; 0 = unknown
    columns: int


def main() -> int:
    channel = socket.socket(fileno=int(sys.argv[2]))
    os.set_inheritable(channel.fileno(), False)
    message, stdio = sync.receive(channel)
    if message is None:
        return 1
    request = cast(Request, message)
    try:
        child = _start(request, channel, stdio)
    except StepError as exc:
        sync.send_error(channel, exc.step, exc)
        return 1
    except (KeyError, TypeError, ValueError) as exc:  # a request that is not one
        sync.send(channel, {"type": "error", "step": "request", "errno": errno.EINVAL, "text": repr(exc)})
        return 1
    sync.send(channel, {"type": "started", "pid": child})
    exit_code = _watch(child, channel)
    try:
        sync.send(channel, {"type": "exit", "exit_code": exit_code})
    except BrokenPipeError:
        pass  # the agent is gone, and nobody else wants to know
    return 0


def _start(request: Request, channel: socket.socket, stdio: list[int]) -> int:
    """Enter the container and start the program; returns its pid on the host once execve has worked."""
    keyring.join_new_session()
    process.set_dumpable(False)  # nobody in there may look into this process before it has become theirs
    with step("limits"):
        Path("/proc/self/oom_score_adj").write_text(str(request["oom_score_adj"]))
        rlimits.raise_hard(request["rlimits"], 0)
    with step("cgroup"):  # opened here: the files are out of sight in there
        cgroups = [os.open(f"{path}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC) for path in request["cgroups"]]
    with step("seccomp"):
        seccomp_filter = program.read_filter(request)
    with step("stdio"):
        base = int(Path(f"/proc/{request['pid']}/uid_map").read_text().split()[1])
        program.give_stdio(stdio, base, base)  # in there nobody may take what belongs to the host's root
    with step("enter"):
        _enter(request["pid"], request["start_ticks"])
    if request["tty"]:
        with step("tty"):
            master, slave = terminal.make(request["rows"], request["columns"])
        sync.send(channel, {"type": "tty"}, [master])
        os.close(master)
        stdio = [slave, slave, slave]
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        with step("fork"):
            pid = os.fork()
        if pid == 0:
            _become(request, theirs, cgroups, (stdio[0], stdio[1], stdio[2]), seccomp_filter)
        theirs.close()
        for fd in {*stdio, *cgroups}:
            os.close(fd)
        answer, _ = sync.receive(ours)
    if answer is not None:
        os.waitpid(pid, 0)
        raise StepError(answer["step"], answer["errno"], answer["text"])
    return pid


def _enter(pid: int, start_ticks: int) -> None:
    pidfd = process.pidfd_open(pid)
    stat_fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    if int(stat_fields[19]) != start_ticks:
        raise OSError(errno.ESRCH, f"process {pid} is not the container's init any more")
    kinds = _CONTAINER
    if Path("/proc/self/ns/time").exists():  # CRIU restores into a time namespace: the clocks must be the container's
        kinds |= namespaces.CLONE_NEWTIME
    namespaces.setns(pidfd, kinds)
    os.close(pidfd)
    os.setgroups(())
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)


def _become(
    request: Request, channel: socket.socket, cgroups: list[int], stdio: tuple[int, int, int], seccomp_filter: bytes
) -> NoReturn:
    try:
        try:
            with step("cgroup"):
                for fd in cgroups:
                    os.write(fd, b"0")
            with step("stdio"):
                os.setsid()
                program.take_stdio(stdio, tty=request["tty"])
                program.close_others(channel.fileno())
            program.become(program.prepare(program.Program.of(request, seccomp_filter)))
        except StepError as exc:
            sync.send_error(channel, exc.step, exc)
        except (KeyError, TypeError, ValueError) as exc:
            sync.send(channel, {"type": "error", "step": "request", "errno": errno.EINVAL, "text": repr(exc)})
    finally:
        os._exit(1)  # whatever happened: a child never returns into main()


def _watch(child: int, channel: socket.socket) -> int:
    """Pass signals on until the child ends; 128 + n for signal n."""
    pidfd = process.pidfd_open(child)
    ended = select.poll()
    ended.register(pidfd, select.POLLIN)
    both = select.poll()
    both.register(pidfd, select.POLLIN)
    both.register(channel.fileno(), select.POLLIN)
    connected = True
    while True:
        ready = (both if connected else ended).poll(None if connected else int(HANG_UP_GRACE_S * 1000))
        if any(fd == pidfd for fd, _ in ready):
            code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
            return 128 - code if code < 0 else code
        if not ready:
            os.killpg(child, signal.SIGKILL)  # not yet reaped, so the number is still the session's
            continue
        message = _next_command(channel)
        if message is None:
            connected = False
            os.killpg(child, signal.SIGHUP)
        elif message.get("type") == "signal":
            process.pidfd_send_signal(pidfd, int(cast(int, message["signal"])))
        elif message.get("type") == "kill":
            os.killpg(child, signal.SIGKILL)


def _next_command(channel: socket.socket) -> dict[str, object] | None:
    try:
        return cast("dict[str, object] | None", sync.receive(channel)[0])
    except (OSError, sync.ProtocolError):
        return None  # nobody there that could be understood: the same as an end of file


if __name__ == "__main__":
    sys.exit(main())
