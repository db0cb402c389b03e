"""The monitor: one a container, its init's parent for life. Forked by the zygote ahead of need, told by the agent whose it is.

    agent ── its own connection, then RUNTIME_DIR/monitor.sock ──►  monitor  ── fork ──►  stage ── fork ──►  init
                     idle ─ become ─ create ─► created ─ start ─► running ─ exit of init ─► exited, gone

It stays in the host's namespaces and in one thread, holds the stdio, writes log and exit status, and outlives the
agent. When init ends it kills what is left in the cgroup, unmounts the root, writes exit.json, tells every client,
and ends. docs/formats.md has the protocol.

Others add to it through `commands` (name -> function(client, request, descriptors), which may answer later), `loop`,
`stdio` and `watch_init`. Standard library, agent.linux and agent.engine only.
"""

from __future__ import annotations

import base64
import errno
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from agent import atomic
from agent.engine import binds, init, link, program, rootfs, store, sysctls, usage
from agent.engine.cgroup import Tasks
from agent.engine.eventloop import Loop
from agent.engine.logs import MAX_BYTES, MAX_FILES, LogWriter
from agent.engine.monitor_clients import Client, Handler, Message, Server
from agent.engine.monitor_start import Birth
from agent.engine.monitor_stdio import ContainerEnds, Stdio
from agent.errors import AgentError
from agent.linux import keyring, mounts, namespaces, process

IDLE_LIMIT_S = 30.0
EMPTY_LIMIT_S = 10.0
REAP_LIMIT_S = 2.0
LEFT_OPEN_S = 10.0  # after a root was mounted, what was needed for it: a start or a restore is over by then
DRAIN_LIMIT_S = 2.0
NOBODYS = "idle".ljust(160, "-")  # the zygote's last argument: where `ps` shows whose a monitor is
Plan = dict[str, Any]


class Monitor:
    """State and commands; `connection`: to its first client. `state`: idle, created, running, exited; whoever adds
    commands may set others (dumping, held, ...).
    """

    def __init__(self, connection: socket.socket) -> None:
        self.loop = Loop()
        self.state = "idle"
        self.pid = 0
        self.exit_code: int | None = None
        self.plan: Plan = {}
        self.stdio: Stdio | None = None
        self.status_extras: dict[str, Any] = {}  # more fields of `status`, for those who add commands
        self.on_init_exit: Callable[[int], None] = self.finish  # a dump that has been committed replaces it
        self.commands: dict[str, Handler] = {
            "make-stage": self._make_stage,
            "become": self._become,
            "fork": self._fork,
            "create": self._create,
            "start": self._start,
            "status": self._status,
            "kill": self._kill,
            "attach": self._attach,
            "stdin": self._with_terminal(self._stdin),
            "close-stdin": self._with_terminal(self._close_stdin),
            "resize": self._with_terminal(self._resize),
            "stdio": self._stdio,
            "discard": self._discard,
        }
        self.failure: tuple[str, int, str] | None = None  # step, errno, text, of a creation that is to be started yet
        self._birth: Birth | None = None  # its stage is made ahead of need
        self._cgroup: Path | None = None  # with an init in it that has been forked
        self._userns = -1  # of an init that has been forked and not been told yet what it is
        self._starting: tuple[Client, Message] | None = None  # who has said "start"
        self._for_terminal: list[Callable[[], None]] = []  # what is wanted of a terminal that init has not made yet
        self._pidfd = -1  # of an init that is not our child
        self._log: LogWriter | None = None
        self._runtime_dir: Path | None = None
        self._server = Server(self.loop, self._request, self._client_gone)
        self._server.add(connection)

    def run(self) -> None:
        keyring.join_new_session()  # the container's, after a restore too
        self._birth = Birth(self.loop)
        self.loop.run()

    # ------------------------------------------------------------ for those who add commands

    def take_plan(self, plan: Plan) -> None:
        """Remember what this container is; open its log. Raises OSError."""
        if self._birth:
            self._birth.discard()  # this container has an init, or CRIU makes it
            self._birth = None
        self.plan = plan
        max_bytes, max_files = plan.get("log_limits", (MAX_BYTES, MAX_FILES))
        self._log = LogWriter(Path(plan["log"]), max_bytes=max_bytes, max_files=max_files)

    def mount_root(self, userns: int = -1, *, to_restore: bool = False) -> None:
        """Mount the container's root where the plan says. `userns`: see rootfs.mount_root(); `to_restore`: its binds not in it, but
        where CRIU takes them from. Raises OSError.
        """
        left = rootfs.mount_root(
            layers=[Path(layer) for layer in self.plan["layers"]],
            writable=Path(self.plan["writable"]),
            target=Path(self.plan["root"]),
            ids_base=self.plan["ids_base"],
            ids_count=self.plan["ids_count"],
            binds=self.plan.get("staged" if to_restore else "binds", ()),
            userns=userns,
            staging=self._staging() if to_restore else None,
        )
        self.loop.call_later(LEFT_OPEN_S, left.close)

    def _staging(self) -> Path:
        return Path(self.plan.get("staging", "/nonexistent"))

    def unstage(self) -> None:
        """What CRIU was to take is in the container, or not wanted any more."""
        try:
            binds.unstage(self._staging())
        except OSError as exc:
            say(f"cannot unmount what was staged: {exc}")

    def show_binds(self) -> None:
        """After a restore: the host's view of the root as after an ordinary start."""
        if not self.plan.get("binds") or self.state != "running":
            return
        try:
            rootfs.show_binds(
                Path(self.plan["root"]), self.plan["binds"], self.plan["ids_base"], self.plan["ids_count"]
            )
        except OSError as exc:
            say(f"the host does not see what is mounted in the container: {exc}")

    def make_stdio(self) -> ContainerEnds:
        """New stdio for the container, read from now on. Close the container's ends with
        stdio.close_container_ends().

        At a start they become the program's user's in init, which knows it. In a restore no init runs: the plan's
        `stdio_owner` says whose they were on the source, as ids in the container.
        """
        assert self._log is not None, "take_plan comes first"
        self.stdio = Stdio(self.loop, self._log, self._output)
        base = self.plan["ids_base"]
        ends = self.stdio.make(tty=self.plan["tty"], stdin_open=self.plan["stdin_open"])
        if "stdio_owner" in self.plan:
            uid, gid = self.plan["stdio_owner"]
            program.give_stdio(ends.fds(), base + uid, base + gid)
        return ends

    def stdio_owner(self) -> list[int]:
        """[uid, gid] in the container, for the plan of a restore; root's where it cannot be told."""
        base, count = self.plan.get("ids_base", 0), self.plan.get("ids_count", 0)
        ids = self.stdio.owner() if self.stdio else (-1, -1)
        return [number - base if base <= number < base + count else 0 for number in ids]

    def save_stdin(self, path: Path) -> None:
        """Before the tasks move: nothing that they said or were told is lost with us. Raises OSError."""
        if self.stdio:
            self.stdio.settle_log()
            path.write_bytes(self.stdio.unread_input())

    def load_stdin(self, path: Path) -> None:
        """After make_stdio(), before the restore: what save_stdin() wrote on the source."""
        if self.stdio and path.exists() and (data := path.read_bytes()):
            self.stdio.write(data, lambda: None)

    def watch_init(self, pid: int) -> None:
        """`pid` is the container's init and our child: its end is the container's."""
        self.pid = pid
        self.loop.on_exit(pid, self._init_exited)

    def adopt_stdio(self, outputs: list[int]) -> None:
        """After take_plan(): go on reading what the container already writes to. The descriptors become ours."""
        assert self._log is not None, "take_plan comes first"
        self.stdio = Stdio(self.loop, self._log, self._output)
        self.stdio.adopt(outputs, tty=self.plan["tty"])

    def adopt_init(self, pid: int) -> None:
        """`pid` is the container's init and not our child: its end shows, its exit code does not. Raises OSError."""
        self.pid, self._pidfd = pid, process.pidfd_open(pid)

        def ended() -> None:
            self.loop.remove_reader(self._pidfd)
            self._init_exited(0)

        self.loop.add_reader(self._pidfd, ended)

    def tasks(self) -> Tasks:
        return Tasks(Path(self.plan["freezer"]) if self.plan else cast(Path, self._cgroup))

    def finish(self, code: int, error: str = "") -> None:
        """The container is over: clean up, write exit.json, tell every client, end. `code` < 0: minus the signal."""
        self.exit_code = 128 - code if code < 0 else code
        self.state = "exited"
        self._end_tasks_then(lambda: self._write_exit(error))

    def end(self) -> None:
        """End this process, leaving no exit.json. The container must be over."""
        self._server.close()
        if self._runtime_dir:
            (self._runtime_dir / "monitor.pid").unlink(missing_ok=True)
        self.loop.stop()

    def end_tasks(self) -> None:
        """Kill everything in the cgroup and wait until nothing is left; `on_init_exit` may run meanwhile.

        Raises AgentError when something stays.
        """
        tasks = self.tasks()
        tasks.kill()
        if not tasks.wait_empty(EMPTY_LIMIT_S):
            raise AgentError(f"tasks {tasks.procs()} survive SIGKILL for {EMPTY_LIMIT_S:.0f} s", code="cgroup")
        deadline = time.monotonic() + REAP_LIMIT_S
        while self.loop.waits_for(self.pid) and time.monotonic() < deadline:
            self.loop.reap()  # init too must be gone, not a zombie, before anybody is told that it is over
            time.sleep(0.002)

    def release_root(self) -> None:
        """Unmount the root and let go of stdio and log. What could not be unmounted is in monitor.log and is
        left to the agent.
        """
        if self.stdio:
            self.stdio.drain()
            self.stdio.close()
            self.stdio = None
        if self._log:
            self._log.close()
            self._log = None
        self.unstage()
        try:
            mounts.unmount_all(Path(self.plan["root"]))
        except OSError as exc:
            say(f"cannot unmount the root: {exc}")

    # ------------------------------------------------------------ commands

    def _request(self, client: Client, request: Message, fds: list[int]) -> None:
        name = str(request.get("cmd"))
        handler = self.commands.get(name)
        if handler is None:
            for fd in fds:
                os.close(fd)
            client.fail(request, name, errno.EINVAL, f"unknown command; known: {', '.join(sorted(self.commands))}")
            return
        try:
            handler(client, request, fds)
        except (KeyError, TypeError, ValueError) as exc:
            client.fail(request, name, errno.EINVAL, f"malformed request: {exc!r}")
        except program.StepError as exc:
            client.fail(request, exc.step, exc.errno or 0, exc.strerror or str(exc))
        except OSError as exc:
            client.fail(request, name, exc.errno or 0, str(exc))
        except AgentError as exc:
            client.fail(request, name, 0, exc.message)

    def _make_stage(self, client: Client, request: Message, _fds: list[int]) -> None:
        """Have the namespaces of an init, and what of its network is every container's: lo, and a socket for the rest of it."""
        flags = int(request.get("flags", init.AHEAD))
        self._birth = birth = self._birth_with(flags)
        pid = birth.stage()
        if not flags & namespaces.CLONE_NEWNET:
            client.answer(request, pid=pid)
            return
        sysctls.apply_defaults(pid)
        with link.open_inside(pid) as inside:
            inside.set_up(link.LOOPBACK)
            client.answer(request, [inside.fileno()], pid=pid)  # nobody else is here yet: it is sent at once

    def _birth_with(self, flags: int) -> Birth:
        """The one that was made ahead of need, where it suits."""
        birth = self._birth
        if birth is not None and not birth.over and birth.flags == flags:
            return birth
        if birth:
            birth.discard()
        return Birth(self.loop, flags)

    def _become(self, client: Client, request: Message, _fds: list[int]) -> None:
        """The monitor of the container whose runtime directory this is: from now on others find it there."""
        if self._runtime_dir:
            client.fail(request, "become", errno.EBUSY, f"this is the monitor of {self._runtime_dir}")
            return
        self._live_at(Path(request["runtime_dir"]))
        client.answer(request)

    def _live_at(self, directory: Path) -> None:
        words = os.open(directory / "monitor.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        os.dup2(words, 2)
        os.close(words)
        self._server.listen(directory / "monitor.sock")
        atomic.write(directory / "monitor.pid", f"{os.getpid()}\n", durable=False)  # of no use after a power cut
        self._runtime_dir = directory
        process.show_argument(NOBODYS, str(directory))

    def _fork(self, client: Client, request: Message, _fds: list[int]) -> None:
        """Have init made with these ids, in its cgroup, and become the monitor of the container whose runtime directory this is."""
        if self.state != "idle" or self._userns >= 0:
            client.fail(request, "fork", errno.EBUSY, f"this monitor is {self.state}")
            return
        self._birth = birth = self._birth_with(int(request["flags"]))
        self._cgroup = Path(request["cgroup"])
        self._userns = birth.map_ids(int(request["ids_base"]), int(request["ids_count"]))
        birth.make_init(self._cgroup)
        if self._runtime_dir is None:
            self._live_at(Path(request["runtime_dir"]))  # while it forks
        client.answer(request, pid=birth.pid())

    def _create(self, client: Client, request: Message, _fds: list[int]) -> None:
        """Answered when the root is mounted. What fails in init after that is the answer to "start", which waits for none of it."""
        if self.state != "idle" or self._userns < 0 or self._birth is None:
            client.fail(request, "create", errno.EBUSY, f"this monitor is {self.state}")
            return
        self.state = "creating"
        birth, self._birth = self._birth, None  # take_plan() would let go of it
        userns, self._userns = self._userns, -1
        try:
            try:
                self.take_plan(request["plan"])
            finally:
                self._birth = birth
            plan = cast(init.Plan, self.plan)
            ends = self.make_stdio()
            self.mount_root(userns)
            root = os.open(plan["root"], os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError as exc:
            client.fail(request, "root", exc.errno or 0, str(exc))
            self._abandon()
            return
        finally:
            os.close(userns)
        client.answer(request)
        birth.create(plan, root, ends.fds(), ready=self._birth_ready, failed=self._birth_failed)
        os.close(root)
        if self.stdio:
            self.stdio.close_container_ends()

    def _birth_ready(self, pid: int) -> None:
        assert self._birth and self.stdio
        if self._birth.terminal >= 0:
            self.stdio.take_terminal(self._birth.terminal)
        self.state = "created"
        self.watch_init(pid)
        waited = self._must_be_ready()
        for act in self._take_for_terminal():
            act()
        if self._starting and waited:
            self._let_go()

    def _must_be_ready(self) -> bool:
        """Whether something has to be done to init, or to its terminal, before the program runs."""
        return bool(self.plan.get("sysctls") or self._for_terminal)

    def _take_for_terminal(self) -> list[Callable[[], None]]:
        wanted, self._for_terminal = self._for_terminal, []
        return wanted

    def _with_terminal(self, act: Handler) -> Handler:
        """`act` waits for the terminal, where there is to be one: who attaches before the start, or with it, misses nothing."""

        def later(client: Client, request: Message, fds: list[int]) -> None:
            if self.state == "creating" and self.plan.get("tty") and not self.failure:
                self._for_terminal.append(lambda: self._request(client, request, fds))
            else:
                act(client, request, fds)

        return later

    def _birth_failed(self, name: str, number: int, text: str) -> None:
        if self.state == "creating":  # init waits, or has ended; nothing that it could have been has run
            self.failure = (name, number, text)
            for act in self._take_for_terminal():  # they hear that there is none
                act()
            if self._starting:
                client, request = self._starting
                client.fail(request, name, number, text)
                self._abandon()
        elif self._starting:
            client, request = self._starting
            client.fail(request, name, number, text)
            # As a shell would: 127 nothing to run, 126 not runnable. Anything before is not the program's fault.
            code = 125 if name != "exec" else 127 if number == errno.ENOENT else 126
            self.on_init_exit = lambda _code: self.finish(code, f"{name}: {text}")

    def _start(self, client: Client, request: Message, _fds: list[int]) -> None:
        """Answered with the read ends of its output when the program runs. May come while it is still being created."""
        if self.failure:
            client.fail(request, *self.failure)
            self._abandon()
            return
        if self.state not in ("creating", "created") or self._birth is None or self._starting:
            client.fail(request, "start", errno.EBUSY, f"the container is {self.state}")
            return
        self._starting = client, request
        if self.state == "created" or not self._must_be_ready():
            self._let_go()

    def _let_go(self) -> None:
        assert self._birth and self._starting
        client, request = self._starting

        def running() -> None:
            if self.state == "created":  # else init has run, exited and been reaped already
                self.state = "running"
            client.answer(request, self.stdio.read_ends() if self.stdio else (), pid=self.pid)

        try:
            sysctls.apply(self.pid, self.plan.get("sysctls", {}))
        except OSError as exc:
            client.fail(request, "sysctl", exc.errno or 0, exc.strerror or str(exc))
            return
        try:
            self._birth.start(running=running)
        except OSError as exc:
            client.fail(request, "start", exc.errno or 0, str(exc))

    def _status(self, client: Client, request: Message, _fds: list[int]) -> None:
        keys = self.stdio.keys() if self.stdio else {}
        client.answer(
            request,
            state=self.state,
            pid=self.pid,
            exit_code=self.exit_code,
            stdio_keys=keys,
            stdio_owner=self.stdio_owner(),
            failure=self.failure,
            **self.status_extras,
        )

    def _kill(self, client: Client, request: Message, _fds: list[int]) -> None:
        number = int(request["signal"])
        if not self.pid or self.exit_code is not None:
            client.fail(request, "kill", errno.ESRCH, f"the container is {self.state}")
            return
        if self._pidfd >= 0:
            process.pidfd_send_signal(self._pidfd, number)
        else:
            os.kill(self.pid, number)  # not reaped yet: the pid is still its own
        client.answer(request)

    def _attach(self, client: Client, request: Message, _fds: list[int]) -> None:
        client.attached = True
        client.answer(request)

    def _stdin(self, client: Client, request: Message, _fds: list[int]) -> None:
        data = base64.b64decode(request["data"], validate=True)
        self._live_stdio().write(data, lambda: client.answer(request))

    def _close_stdin(self, client: Client, request: Message, _fds: list[int]) -> None:
        self._live_stdio().close_input()
        client.answer(request)

    def _resize(self, client: Client, request: Message, _fds: list[int]) -> None:
        self._live_stdio().resize(int(request["rows"]), int(request["columns"]))
        client.answer(request)

    def _stdio(self, client: Client, request: Message, _fds: list[int]) -> None:
        client.answer(request, self._live_stdio().read_ends())

    def _discard(self, client: Client, request: Message, _fds: list[int]) -> None:
        self.on_init_exit = lambda _code: None
        self.state = "discarded"  # an order of a dead agent's may still be on its way
        self._end_unstarted()
        client.answer(request)
        self.end()

    # ------------------------------------------------------------ the end

    def _init_exited(self, code: int) -> None:
        if self._birth:
            self._birth.drain()  # its last words may say why
        self.on_init_exit(code)

    def _abandon(self) -> None:
        """The creation failed and its client knows: nothing of it may stay."""
        self.state = "failed"
        self.on_init_exit = lambda _code: None
        if self._birth:
            self._birth.discard()
        try:
            self._end_unstarted()
        except (AgentError, OSError) as exc:
            say(f"clean-up after a failed creation: {exc}")
        self.end()

    def _end_unstarted(self) -> None:
        if self.plan or self._cgroup:
            self.end_tasks()  # an init without a plan would end by itself, but who looks next would find it
        if self.plan:
            self.release_root()

    def _end_tasks_then(self, after: Callable[[], None]) -> None:
        try:
            self.end_tasks()
        except (AgentError, OSError) as exc:
            say(str(exc))  # the exit status matters more; the agent sees the tasks in the cgroup
        deadline = time.monotonic() + DRAIN_LIMIT_S

        def wait_for_output() -> None:
            # The tasks are dead, so the pipes end at once unless a process outside the cgroup holds one.
            if self.stdio and not self.stdio.ended and time.monotonic() < deadline:
                self.loop.call_later(0.01, wait_for_output)
                return
            after()

        wait_for_output()

    def _write_exit(self, error: str) -> None:
        assert self.exit_code is not None
        status = store.ExitStatus(
            exit_code=self.exit_code,
            finished_unix_ns=time.time_ns(),
            error=error,
            oom_kills=usage.oom_kills(Path(self.plan["oom_events"])),
        )
        if self.stdio:
            self.stdio.drain()  # its last words come before the news of its end
        try:
            store.write_exit(Path(self.plan["exit"]), status, durable=not self.plan["remove_on_exit"])
        except OSError as exc:
            say(f"cannot write exit.json: {exc}")
        self._server.broadcast("exit", exit_code=self.exit_code)
        self.release_root()  # nobody waits for this: to unmount an overlay brings the file system below it to its disk
        self.end()

    def _output(self, stream: str, data: bytes) -> None:
        if any(client.attached for client in self._server.clients):
            for start in range(0, len(data), 32768):  # a packet has room for 64 KiB of JSON
                text = base64.b64encode(data[start : start + 32768]).decode()
                self._server.broadcast("output", attached_only=True, stream=stream, data=text)

    def _live_stdio(self) -> Stdio:
        if self.stdio is None:
            raise OSError(errno.EBADF, f"the container is {self.state}")
        return self.stdio

    def _client_gone(self) -> None:
        if self.state == "idle":
            self.loop.call_later(IDLE_LIMIT_S if self._runtime_dir else 0, self._end_if_forgotten)

    def _end_if_forgotten(self) -> None:
        """The agent that has us made died before it said what for."""
        if self.state == "idle" and not self._server.clients:
            self._abandon()


def say(text: str) -> None:
    """Into monitor.log."""
    os.write(2, f"monitor: {text}\n".encode())


def live(connection: socket.socket, extend: Callable[[Monitor], None] = lambda _monitor: None) -> None:
    """A monitor's whole life, in a process of its own that the zygote forked. `extend` adds commands before the first request."""
    process.set_child_subreaper()
    monitor = Monitor(connection)
    extend(monitor)
    monitor.run()
