"""The frozen window at the target: CRIU makes the tasks in their monitor, frozen, with their link down.

Nothing is undone here: whatever fails, Target.finish() discards.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import logging
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

from agent.config import AgentConfig
from agent.criu import images as criu_images
from agent.criu import marks as criu_marks
from agent.criu import options
from agent.engine import init, mounted, network
from agent.engine.container import Engine
from agent.engine.launch import MonitorError
from agent.engine.spec import ContainerSpec
from agent.errors import TransferError, WrongState
from agent.handover import stage, stream_watch
from agent.handover.criu_error import criu_error
from agent.handover.ended import EndedMoves
from agent.handover.receivers import ROLE, Receivers
from agent.handover.record import Move, MoveRecord
from agent.setup.criu import CriuInstall
from agent.storage.images import Image, ImageStore

RESTORE_LIMIT_S = 110.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Restored:
    pid: int
    marks: list[dict[str, Any]]
    criu_stats: dict[str, float]
    mode: str


class Restore:
    """Of any move that comes to this host; keeps nothing between two."""

    def __init__(
        self,
        config: AgentConfig,
        engine: Engine,
        image_store: ImageStore,
        criu: Callable[[], CriuInstall],
        ended: EndedMoves,
        receivers: Receivers,
    ) -> None:
        self._config, self._engine, self._images = config, engine, image_store
        self._criu, self._ended, self._receivers = criu, ended, receivers

    def make_ready(self, move: Move, spec: ContainerSpec) -> None:
        """All that takes time and needs nothing of the container's state. Raises AgentError, OSError."""
        self._engine.ports.publish(spec)  # now: a port that is taken here ends the move while nothing is lost by it
        if spec.network.address:
            network.prepare_peer(spec, self._config.bridge)
        monitor = self._engine.roles.spawn_monitor(spec.id)
        record = move.read()
        (move.images / "lazy-pages.socket").unlink(missing_ok=True)
        criu_images.load(self._criu().pycriu_path)  # the first time takes a fifth of a second
        monitor.request("prepare", images_dir=str(move.images), memory_dir=str(move.memory) if record.lazy else "")

    def run(self, move: Move, record: MoveRecord) -> Restored:
        """Of what has been checked to be here. Raises CriuError, and TransferError where memory does not follow; nothing of the container
        runs then.
        """
        spec = self._engine.inspect(record.container_id).spec
        try:
            monitor = self._engine.roles.monitor(spec.id)
        except WrongState:  # the agent was restarted since accept
            self._ended.refuse(move.migration_id, ROLE)  # or Finish has ended it, just now
            self.make_ready(move, spec)
            monitor = self._engine.roles.monitor(spec.id)
        self._bring_logs(move, spec.id)
        criu = self._criu()
        plan = self._plan(move, spec, criu, record)
        watch = stream_watch.of(move, lambda: self._receivers.receives(record), lambda: self.end(spec.id))
        try:
            self._ended.refuse(move.migration_id, ROLE)  # if Finish comes from here on, it ends what the monitor does
            with (
                ThreadPoolExecutor(1) as meanwhile,
                watch or nullcontext(),
            ):  # what needs the disk does not lengthen the freeze
                registered = meanwhile.submit(self._register, move, record)
                answer = monitor.request("restore", timeout_s=RESTORE_LIMIT_S, plan=plan).fields
            registered.result()
        except MonitorError as exc:
            self._ended.refuse(move.migration_id, ROLE)  # then that is the reason
            if watch and watch.why:
                raise TransferError(
                    f"memory that CRIU needs for the restore, and that was to follow from {record.peer_host}, does not come: {watch.why}",
                    hint=f"the container runs on on {record.peer_host}; see to the link between the two hosts, then move it again",
                ) from exc
            raise criu_error("restore", move.images / "restore.log", exc) from exc
        life = json.loads((move.images / "handover.json").read_text()).get("life", {})
        self._engine.roles.set_process(spec.id, int(answer["pid"]), life)
        pycriu = criu_images.load(criu.pycriu_path)
        return Restored(
            pid=int(answer["pid"]),
            marks=list(answer["marks"]),
            criu_stats=criu_images.stats(pycriu, move.images / "stats-restore"),
            mode="lazy" if record.lazy else "plain",
        )

    def end(self, container_id: str) -> None:
        """The restore under way fails, and what it has made is dead."""
        try:
            self._engine.roles.monitor(container_id).request("discard")
        except (MonitorError, WrongState) as exc:
            _log.info("container %s: its restore was not ended: %s", container_id, exc.message)

    def _plan(self, move: Move, spec: ContainerSpec, criu: CriuInstall, record: MoveRecord) -> dict[str, Any]:
        handover = json.loads((move.images / "handover.json").read_text())
        stdio = options.Stdio(**handover["stdio"])
        plan, carry = network.link_plan(spec, self._config.bridge), network.may_change(spec)
        rpc = options.load(criu.pycriu_path)
        if carry:
            criu_images.drop_foreign_ping_range(move.images)
        request = options.restore(
            rpc,
            root=self._engine.store.directory(spec.id) / "rootfs",
            images_dir=move.images_link,
            external=[
                *init.external_mounts((each.source, each.target) for each in spec.isolation.devices),
                *mounted.external(spec, self._config.staging_dir / spec.id),
            ],
            cgroup_roots=self._engine.cgroup(spec.id).criu_roots(),
            peer=plan.peer,
            carry_network=carry,
            stdio=stdio,
            lazy=record.lazy,
        )
        container, scratch = self._engine.plan(spec), stage.scratch(move, len(mounted.tmpfs(spec)))
        staged = mounted.staged(container, spec, scratch)
        if record.rehearsal:  # the trees that have come are the move's own; what is the host's is not to be written to
            foreign = mounted.of_the_host(spec, lambda name: bool(self._engine.volumes.get(name).shared))
            staged[: len(foreign)] = [
                {**one, "throw_away": its} for one, its in zip(staged[: len(foreign)], foreign, strict=True)
            ]
        return {
            "container": {
                **container,
                "staged": staged,
                "stdio_owner": handover.get("stdio_owner", [0, 0]),
            },
            "binary": str(criu.binary),
            "request": base64.b64encode(request).decode(),
            "inherit": options.STDIO_FDS,
            "link": dataclasses.asdict(plan),
            "furnish": not carry,
            "neighbours": str(move.images / "neighbours.json"),
            "stdin": str(move.images / "stdin.bin"),
            "mounts": handover.get("mounts", {}),
            "thawed": str(move.images / criu_marks.THAWED),
            "lazy": record.lazy,
        }

    def _register(self, move: Move, record: MoveRecord) -> None:
        if not record.rehearsal:
            self._images.register(read_image(move))

    def _bring_logs(self, move: Move, container_id: str) -> None:
        """The log goes on where it stopped on the source. It is durable when Finish answers; here clients wait."""
        for path in move.logs.iterdir():
            shutil.copyfile(path, self._engine.store.directory(container_id) / path.name)


def check_received(move: Move, digest: str) -> None:
    """`digest`: of what the source has sent. Raises TransferError."""
    try:
        received = json.loads(move.received.read_text())
    except FileNotFoundError:
        raise TransferError("the container's state has not arrived on this host", hint="start the move again") from None
    if received["digest"] != digest:
        raise TransferError("what arrived here is not what the source sent last: the digests differ")


def write_image(move: Move, image: Image) -> None:
    (move.directory / "image.json").write_text(json.dumps(dataclasses.asdict(image)))


def read_image(move: Move) -> Image:
    return Image.from_dict(json.loads((move.directory / "image.json").read_text()))
