"""The target's half of a handover, in the monitor: restore up to pre-resume, freeze there, and run only when told.

    idle ─ prepare ─► idle ─ restore ─► restoring ─ pre-resume ─► restored ─ resume ─► running
                                           └─ error ─► (discard)     ├──── discard ─► gone
                                                                     └─ try ─► running, sealed ─ discard ─► gone

CRIU is refused at post-restore at the latest: at pre-resume it ignores the answer, so there the version 2 freezer is on before
CRIU gets its answer and lets the tasks go. Standard library only.
"""

from __future__ import annotations

import base64
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from agent.criu import mount_flags, sysctl
from agent.criu.rpc import Response
from agent.criu.swrk import Swrk
from agent.engine import link, sysctls
from agent.engine.monitor import Monitor, say
from agent.engine.monitor_clients import Client, Message
from agent.errors import AgentError

BRIDGE_PAUSE_S, BRIDGE_LIMIT_S = 0.005, 5.0
FILLER = Path(__file__).with_name("filler.py")


class Arrival:
    """Registers the commands prepare, restore, resume and try; adds to discard."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self._plan: dict[str, Any] = {}
        self._link = link.LinkPlan(bridge="")
        self._criu: Swrk | None = None
        self._filler: subprocess.Popen[bytes] | None = None
        self._marks: list[dict[str, Any]] = []
        self._waiting: tuple[Client, Message] | None = None
        self._error = ""
        self._window = sysctl.UserfaultWindow()
        self._sealed = False  # a rehearsal's: it runs, and nobody may ever hear of it
        self._discard_rest = monitor.commands["discard"]
        monitor.commands |= {
            "prepare": self._prepare,
            "restore": self._restore,
            "resume": self._resume,
            "try": self._try,
            "discard": self._discard,
        }

    def _prepare(self, client: Client, request: Message, _fds: list[int]) -> None:
        """Start what takes a while before anything is frozen: the process that will fill the memory."""
        if self._filler is None and request.get("memory_dir"):
            root, images, memory = str(FILLER.parents[2]), request["images_dir"], request["memory_dir"]
            self._filler = subprocess.Popen(
                [sys.executable, "-I", "-S", str(FILLER), root, images, memory],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                start_new_session=True,
            )
            assert self._filler.stdout is not None
            said = self._filler.stdout.readline()
            self._filler.stdout.close()
            if not said:
                raise AgentError("the process that fills memory did not start; monitor.log has its words")
            self._monitor.loop.on_exit(self._filler.pid, self._filler_ended)
            self._monitor.status_extras["filling"] = True
        client.answer(request)

    def _restore(self, client: Client, request: Message, _fds: list[int]) -> None:
        """Asked again by the next agent, for the one that asked has died: the answer is that of the restore which goes on or is done."""
        if self._monitor.state == "restoring":
            self._waiting = (client, request)
            return
        if self._monitor.state == "restored":
            client.answer(request, pid=self._monitor.pid, marks=self._marks)
            return
        if self._monitor.state != "idle":
            client.fail(request, "restore", 0, f"this monitor is {self._monitor.state}")
            return
        self._plan = request["plan"]
        self._link = link.LinkPlan(**self._plan["link"])
        self._waiting = (client, request)
        self._monitor.state = "restoring"
        self._mark("restore")
        try:
            self._monitor.take_plan(self._plan["container"])
            ends = self._monitor.make_stdio()
            self._monitor.load_stdin(Path(self._plan["stdin"]))
            streams = {"stdin": ends.stdin, "stdout": ends.stdout, "stderr": ends.stderr}
            self._criu = Swrk(
                self._monitor.loop,
                self._plan["binary"],
                inherit={number: streams[name] for name, number in self._plan["inherit"].items()},
                on_notify=self._notified,
                on_end=self._criu_ended,
            )
            self._monitor.mount_root(to_restore=True)  # CRIU starts up meanwhile
            self._criu.request(base64.b64decode(self._plan["request"]))
        except (OSError, AgentError):
            self._monitor.state = "failed"
            self._waiting = None  # the exception is the answer
            if self._criu:
                self._criu.kill()
            raise
        finally:
            if self._monitor.stdio:
                self._monitor.stdio.close_container_ends()

    def _notified(self, script: str, pid: int, fds: list[int]) -> None:
        assert self._criu is not None
        if script == "orphan-pts-master" and self._monitor.stdio and fds:
            self._monitor.stdio.take_terminal(fds.pop())
        for fd in fds:
            os.close(fd)
        try:
            if script == "setup-namespaces":
                sysctls.apply_defaults(pid)
                sysctls.apply(pid, self._monitor.plan.get("sysctls", {}))
                if self._plan["furnish"]:
                    link.furnish(self._link, pid)
                if self._plan["lazy"]:
                    self._window.open()
            elif script == "post-restore":
                self._window.close()
                self._mark("created")
                link.bring_neighbours(pid, Path(self._plan["neighbours"]))
                self._check_mounts(pid)
            elif script == "pre-resume":
                self._monitor.tasks().freeze(True)
                self._mark("frozen")
        except (AgentError, OSError) as exc:
            self._error = f"{script}: {exc}"
            if script == "pre-resume":
                self._monitor.tasks().kill()  # CRIU ignores a refusal here and would let them run
            self._criu.answer(False)
            return
        self._criu.answer(True)

    def _check_mounts(self, pid: int) -> None:
        """What was forbidden on the source is forbidden here. Raises AgentError, OSError: then CRIU is refused."""
        if mended := mount_flags.put_back(pid, self._plan["mounts"], self._monitor.tasks().procs()):
            say(f"CRIU has not restored flags of mounts, they were set: {'; '.join(mended)}")

    def _criu_ended(self, response: Response | None) -> None:
        self._criu = None
        self._window.close()
        self._monitor.unstage()
        client, request = self._waiting or (None, {})
        self._waiting = None
        if response is not None and response.success and response.pid and not self._error:
            self._monitor.state = "restored"
            self._monitor.watch_init(response.pid)
            self._mark("restored")
            if client:
                client.answer(request, pid=response.pid, marks=self._marks)
            return
        # Nothing of a failed restore may run: kill before anybody looks at the reason.
        self._monitor.state = "failed"
        self._monitor.tasks().kill()
        if client:
            died = "CRIU died in the middle of the restore" if response is None else "CRIU refused the restore"
            message = self._error or (response.message if response else "") or died
            client.fail(request, "restore", response.errno if response else 0, message)

    def _resume(self, client: Client, request: Message, _fds: list[int]) -> None:
        """Link up, thaw. Idempotent: it is retried until it works, for there is no way back."""
        if self._sealed:
            client.fail(request, "resume", 0, "this is a rehearsal's copy: it is never resumed")
            return
        if self._monitor.state == "running":
            client.answer(request, marks=self._marks)
            return
        if self._monitor.state != "restored":
            client.fail(request, "resume", 0, f"the container is {self._monitor.state}")
            return
        link.join(self._link)
        self._tell_the_bridge(time.monotonic() + BRIDGE_LIMIT_S)
        self._mark("linked")
        Path(self._plan["thawed"]).touch()
        self._monitor.tasks().freeze(False)
        self._monitor.state = "running"
        self._mark("running")
        client.answer(request, marks=self._marks)
        self._monitor.loop.call_later(0.0, self._monitor.show_binds)

    def _try(self, client: Client, request: Message, _fds: list[int]) -> None:
        """Thaw with the link down. Idempotent."""
        if not self._sealed:
            if self._monitor.state != "restored":
                client.fail(request, "try", 0, f"the container is {self._monitor.state}")
                return
            self._sealed = True
            link.seal(self._link)
            self._monitor.tasks().freeze(False)
            self._monitor.state = "running"
            self._mark("running")
        client.answer(request, marks=self._marks)

    def _tell_the_bridge(self, until_s: float) -> None:
        """A bridge refuses an entry for a port that does not forward yet. Past the pivot that holds nobody up: it is told as soon as it
        listens. Until then what is sent to the container goes where it last was.
        """
        try:
            link.tell_bridge(self._link)
        except OSError as exc:
            if time.monotonic() < until_s:
                self._monitor.loop.call_later(BRIDGE_PAUSE_S, lambda: self._tell_the_bridge(until_s))
            else:
                say(f"the bridge was not told where the container is: {exc}")

    def _discard(self, client: Client, request: Message, fds: list[int]) -> None:
        self._waiting = None
        if self._criu:
            self._monitor.tasks().kill()
            self._criu.kill()
        if self._filler and self._filler.returncode is None:
            self._filler.kill()
        self._window.close()
        self._discard_rest(client, request, fds)

    def _filler_ended(self, code: int) -> None:
        """Status 0: all memory is there. Else the tasks must not run on: what is missing would read as zeros."""
        assert self._filler is not None
        self._filler.returncode = code
        self._monitor.status_extras.pop("filling", None)
        self._mark("filled" if code == 0 else "filler-died")
        self._monitor.status_extras["marks"] = self._marks
        if code and self._monitor.state in ("restoring", "restored"):
            self._error = "the process that fills memory died"
            self._monitor.tasks().kill()
            self._monitor.state = "failed"
        elif code and self._monitor.state == "running":
            self._monitor.tasks().freeze(True)
            self._monitor.status_extras["memory_lost"] = True
            self._monitor.status_extras["error"] = (
                f"the process that fills memory died (status {code}) before it was done: the container is frozen, "
                "for the memory that it lacks would read as zeros"
            )

    def _mark(self, name: str) -> None:
        self._marks.append({"name": name, "unix_ns": time.time_ns()})
