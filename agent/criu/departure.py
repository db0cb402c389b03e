"""The source's half of a handover, in the monitor: dump up to post-dump, hold the tasks frozen, then go back or go through with it.

    running ─ dump ─► dumping ─ network-lock ─► locked ─ hold ─► dumping ─ post-dump ─► held ─ rollback ─► running
                                                  └─ rollback ─► running                  └──── release ─► gone

At "locked" all tasks stand still and CRIU has touched none of them: the moment to look what was written last.

"Held" is a state of the kernel, not only of CRIU: the version 2 freezer is on and the interface is off the bridge, so whoever dies
now, CRIU and this monitor included, the tasks do not run and nothing answers for them. Order and reasons: docs/migration.md.
Standard library only.
"""

from __future__ import annotations

import base64
import socket
import time
from pathlib import Path
from typing import Any

from agent.criu import fixup, options
from agent.criu.rpc import Response
from agent.criu.swrk import Swrk
from agent.engine import link
from agent.engine.held_frames import HeldFrames
from agent.engine.monitor import Monitor, say
from agent.engine.monitor_clients import Client, Message
from agent.errors import AgentError

CRIU_END_LIMIT_S = 10.0
FILLING_PAUSE_S, FILLING_LIMIT_S = 0.02, 90.0
UNACCEPTED_PAUSE_S, UNACCEPTED_TRIES = 0.03, 20


class Departure:
    """Registers the commands dump, hold, rollback and release."""

    def __init__(self, monitor: Monitor) -> None:
        self._monitor = monitor
        self._plan: dict[str, Any] = {}
        self._criu: Swrk | None = None
        self._port: socket.socket | None = None  # held so that CRIU cannot listen there
        self._why = ""  # the last dump failed, for whoever asks after it
        self._marks: list[dict[str, Any]] = []
        self._waiting: tuple[Client, Message] | None = None
        self._link = link.LinkPlan(bridge="")
        self._unlinked = False
        self._frames: HeldFrames | None = None
        self._rolling_back = False
        self._postponed: tuple[Client, Message] | None = None  # a dump that is tried (again) in a moment
        self._unaccepted = 0
        monitor.commands |= {
            "dump": self._dump,
            "hold": self._continue,
            "rollback": self._rollback,
            "release": self._release,
        }

    # ------------------------------------------------------------ dump

    def _dump(self, client: Client, request: Message, _fds: list[int]) -> None:
        self._postponed = None
        if self._monitor.status_extras.get("filling"):
            # Pages of the last move that have not come yet would be missing in the images: the next host would read zeros.
            until_s = request.setdefault("until_s", time.monotonic() + FILLING_LIMIT_S)
            if time.monotonic() > until_s:
                client.fail(request, "dump", 0, "its memory is still being filled after the last move: try again later")
                return
            self._postpone(client, request, FILLING_PAUSE_S)
            return
        if self._monitor.state != "running" or self._monitor.status_extras.get("memory_lost"):
            lacking = " and lost memory in its last move" if self._monitor.status_extras.get("memory_lost") else ""
            client.fail(request, "dump", 0, f"the container is {self._monitor.state}{lacking}")
            return
        self._plan = request["plan"]
        self._link = link.LinkPlan(**self._plan["link"])
        self._marks = []
        self._unlinked = self._rolling_back = False
        self._unaccepted = 0
        self._waiting = (client, request)
        self._monitor.state = "dumping"
        self._mark("dump")
        self._why = ""
        self._port = _take_port()
        try:
            self._criu = Swrk(
                self._monitor.loop,
                self._plan["binary"],
                inherit={},
                on_notify=self._notified,
                on_end=self._criu_ended,
                environment=self._plan["environment"],
            )
            self._criu.request(base64.b64decode(self._plan["request"]))
        except OSError:
            self._monitor.state = "running"
            raise

    def _postpone(self, client: Client, request: Message, pause_s: float) -> None:
        """Try in a moment; a rollback calls it off."""
        waiting = self._postponed = (client, request)
        self._monitor.loop.call_later(
            pause_s, lambda: self._dump(client, request, []) if self._postponed is waiting else None
        )

    def _call_off(self) -> None:
        if self._postponed:
            client, request = self._postponed
            self._postponed = None
            client.fail(request, "dump", 0, "the move was called off")

    def _notified(self, script: str, _pid: int, _fds: list[int]) -> None:
        assert self._criu is not None
        if self._rolling_back:
            self._criu.answer(True)
            return
        try:
            if script == "pre-dump":
                link.save_neighbours(self._monitor.pid, Path(self._plan["neighbours"]))
            elif script == "network-lock":
                self._mark("frozen")
                self._unlinked = True  # before the effect: an undo of what was never done does no harm
                self._hold_frames()
                link.cut(self._link)
                if self._frames:
                    self._frames.start()
                self._unaccepted = link.unaccepted(self._monitor.pid)
                if self._unaccepted:
                    self._criu.answer(False)  # CRIU would refuse them too, but only after its work, and ours
                    return
                self._monitor.state = "locked"
                self._reply(marks=self._marks, pid=self._monitor.pid)
                return  # the answer is hold's or rollback's
            elif script == "post-dump":
                self._mark("dumped")
                self._monitor.tasks().freeze(True)
                self._held()
                return  # the answer is rollback's or nobody's
        except (AgentError, OSError) as exc:
            self._monitor.status_extras["error"] = f"{script}: {exc}"
            self._criu.answer(False)
            return
        self._criu.answer(True)

    def _continue(self, client: Client, request: Message, _fds: list[int]) -> None:
        """Let CRIU dump; the reply comes when the tasks are held frozen."""
        if self._monitor.state != "locked" or self._criu is None:
            client.fail(request, "hold", 0, self._why or f"the container is {self._monitor.state}")
            return
        self._waiting = (client, request)
        self._monitor.state = "dumping"
        self._criu.answer(True)

    def _held(self) -> None:
        self._monitor.state = "held"
        self._mark("held")
        self._monitor.save_stdin(Path(self._plan["stdin"]))
        self._reply(marks=self._marks, pid=self._monitor.pid)

    def _reply(self, **fields: Any) -> None:
        if self._waiting:
            client, request = self._waiting
            self._waiting = None
            client.answer(request, **fields)

    def _criu_ended(self, response: Response | None) -> None:
        """Before the hold: the dump failed and CRIU has let the tasks go, or died and could not. In the hold: frozen stays frozen."""
        self._criu = None
        if self._port:
            self._port.close()
        if self._monitor.state not in ("dumping", "locked"):
            return
        error = self._monitor.status_extras.pop("error", "")
        if response is None:
            error = "CRIU died in the middle of the dump"
            fixup.free_after_criu(self._monitor.pid, self._monitor.tasks().procs())
        self._relink()
        self._give_frames_back()
        self._monitor.state = "running"
        waiting, self._waiting = self._waiting, None
        if waiting and self._unaccepted and not error:
            client, request = waiting
            tries = request["tries"] = request.get("tries", 0) + 1
            if tries < UNACCEPTED_TRIES:
                self._postpone(client, request, UNACCEPTED_PAUSE_S)
                return
            count = self._unaccepted
            error = f"network-lock: {count} in-flight connections, which the program did not accept in {tries} looks"
        self._why = error or (response.message if response else "") or "CRIU refused the dump"
        if waiting:
            client, request = waiting
            client.fail(request, "dump", response.errno if response else 0, self._why)

    # ------------------------------------------------------------ the end of the hold

    def _rollback(self, client: Client, request: Message, _fds: list[int]) -> None:
        """The tasks run on as if nothing had happened. Idempotent. A dump under way is refused at its next notification."""
        self._call_off()
        state = self._monitor.state
        if state == "running":
            self._relink()
            self._give_frames_back()
            if not self._monitor.status_extras.get("memory_lost"):  # else it is frozen for good
                self._monitor.tasks().freeze(False)
            client.answer(request, marks=[])
            return
        if state == "locked" and self._criu is not None:
            self._monitor.state = "dumping"
            self._criu.answer(False)
            state = "dumping"
        if state == "dumping":
            self._monitor.status_extras["error"] = "the move was called off"
            self._refuse_when_asked(client, request)
            return
        if state != "held":
            client.fail(request, "rollback", 0, f"the container is {state}")
            return
        self._relink()
        if self._criu is None:
            fixup.free_after_criu(self._monitor.pid, self._monitor.tasks().procs())
            self._thaw(client, request)
            return
        self._rolling_back = True
        self._monitor.state = "rolling-back"
        self._criu.answer(False)
        self._when_criu_ended(lambda: self._thaw(client, request))

    def _refuse_when_asked(self, client: Client, request: Message) -> None:
        """CRIU cannot be interrupted safely, only refused: let the dump reach its end, then undo it."""
        if self._monitor.state == "dumping":
            self._monitor.loop.call_later(0.01, lambda: self._refuse_when_asked(client, request))
        else:
            self._rollback(client, request, [])

    def _thaw(self, client: Client, request: Message) -> None:
        self._give_frames_back()
        self._monitor.tasks().freeze(False)
        self._monitor.state = "running"
        self._mark("thawed")
        client.answer(request, marks=self._marks[-1:])

    def _release(self, client: Client, request: Message, _fds: list[int]) -> None:
        """The container lives on the target: end what is frozen here, say nothing to anybody, leave no exit status."""
        if self._monitor.state != "held":
            client.fail(request, "release", 0, f"the container is {self._monitor.state}, not held: it is not killed")
            return
        self._monitor.on_init_exit = lambda _code: None
        self._monitor.tasks().kill()  # works on frozen tasks, and on those that CRIU traces
        if self._criu:
            self._criu.kill()
        self._when_criu_ended(lambda: self._released(client, request))

    def _released(self, client: Client, request: Message) -> None:
        try:
            self._monitor.end_tasks()
        except AgentError as exc:
            client.fail(request, "release", 0, exc.message)
            return
        self._monitor.release_root()
        self._mark("released")
        client.answer(request, marks=self._marks[-1:])
        self._monitor.end()

    # ------------------------------------------------------------ parts

    def _relink(self) -> None:
        if self._unlinked:
            link.join(self._link)
            self._unlinked = False

    def _hold_frames(self) -> None:
        """What clients send from now on is not lost. A help, no need: without packet sockets they send it again, later."""
        self._give_frames_back()
        if self._link.host:
            try:
                self._frames = HeldFrames(self._link)
            except OSError as exc:
                say(f"frames are not held during the freeze: {exc}")
                return
            self._monitor.loop.add_reader(self._frames.fileno(), self._frames.take)

    def _give_frames_back(self) -> None:
        """After CRIU has opened the network again: it drops what comes before."""
        if self._frames:
            self._monitor.loop.remove_reader(self._frames.fileno())
            self._frames.give_back()
            self._frames.close()
            self._frames = None

    def _when_criu_ended(self, then: Any) -> None:
        deadline = time.monotonic() + CRIU_END_LIMIT_S

        def look() -> None:
            if self._criu is None:
                then()
                return
            if time.monotonic() > deadline:
                self._criu.kill()  # the tasks are frozen or dead: nothing runs because of it
            self._monitor.loop.call_later(0.002, look)

        look()

    def _mark(self, name: str) -> None:
        self._marks.append({"name": name, "unix_ns": time.time_ns()})


def _take_port() -> socket.socket | None:
    """Bind the page server's port and do not listen. Monitors share it, CRIU sets SO_REUSEADDR alone and does not get it."""
    taken = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    try:
        taken.bind(("0.0.0.0", options.UNUSED_PORT))  # noqa: S104  nobody can connect: it never listens
    except OSError:
        taken.close()  # a program of the host has it: CRIU does not get it either
        return None
    return taken
