"""The frozen window at the source: the tasks stand still, CRIU dumps what it is shown, the sender sends the rest; the target confirms all.

    dump ─► locked ─► look ─┬─ hold (CRIU dumps) ──────┬─► held ─► final (images, small memory, last files)
                            └─ rest, files (sender) ───┘

What each part costs: docs/window.md. Nothing is undone here: whatever fails, Source.finish() rolls back.
"""

from __future__ import annotations

import base64
import dataclasses
import json
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

from agent.config import AgentConfig
from agent.criu import images, mount_flags, options
from agent.engine import init, mounted, network
from agent.engine.container import Engine
from agent.engine.launch import MonitorError
from agent.engine.spec import ContainerSpec
from agent.errors import WrongState
from agent.handover import carried, inside
from agent.handover.criu_error import criu_error
from agent.handover.ended import EndedMoves
from agent.handover.record import Move, MoveRecord
from agent.setup.criu import CriuInstall
from agent.transfer.commands import Progress, TransferProcess

ROLE = "source"
DUMP_LIMIT_S = 120.0


@dataclass(kw_only=True)
class Frozen:
    """FreezeResult of protos/agent.proto."""

    marks: list[dict[str, Any]]
    sent_bytes: dict[str, int]
    memory_pages: int
    digest: str
    travelled: dict[str, dict[str, int]] = field(default_factory=dict)
    later_bytes: int = 0
    criu_stats: dict[str, float] = field(default_factory=dict)


class Freeze:
    """Of any move that leaves this host; keeps nothing between two."""

    def __init__(self, config: AgentConfig, engine: Engine, ended: EndedMoves) -> None:
        self._config, self._engine, self._ended = config, engine, ended

    def run(
        self,
        move: Move,
        record: MoveRecord,
        criu: CriuInstall,
        sender: TransferProcess,
        progress: Progress,
        *,
        postcopy: bool,
    ) -> Frozen:
        """Returns when the target has confirmed it. `postcopy`: memory that the target lacks stays here.

        Raises AgentError: CRIU refuses, the stream breaks, the move is over; OSError.
        """
        directory = self._engine.store.directory(record.container_id)
        roots = carried.trees(self._engine, record.container_id)
        marks, held = self._dump(move, record, criu, sender, roots, postcopy=postcopy)
        answer = sender.request(
            "final",
            progress,
            images_dir=str(move.images),
            roots=roots,
            held=held,
            logs=str(directory),
            postcopy=postcopy,
        )
        return Frozen(
            marks=[*marks, *answer["marks"]],
            sent_bytes={name: int(size) for name, size in answer["sent_bytes"].items()},
            travelled=answer["travelled"],
            memory_pages=int(answer["memory_pages"]),
            digest=str(answer["digest"]),
            later_bytes=int(answer["later_bytes"]),
            criu_stats=images.stats(images.load(criu.pycriu_path), move.images / "stats-dump"),
        )

    def _dump(
        self,
        move: Move,
        record: MoveRecord,
        criu: CriuInstall,
        sender: TransferProcess,
        roots: list[Any],
        *,
        postcopy: bool,
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """(marks, for each of the trees at `roots` what inside.Held says). Files go along while CRIU dumps."""
        container_id = record.container_id
        spec = self._engine.store.spec(container_id)
        monitor = self._engine.roles.monitor(container_id)
        status = monitor.request("status").fields
        handover = {
            "stdio": status["stdio_keys"],
            "stdio_owner": status.get("stdio_owner", [0, 0]),
            "life": self._engine.roles.life(container_id),
        }
        request = options.dump(
            options.load(criu.pycriu_path),
            pid=int(status["pid"]),
            root=self._engine.store.directory(container_id) / "rootfs",
            images_dir=move.images_link,
            external=self._external(spec, int(status["pid"])),
            skeleton=record.lazy,
            carry_network=network.may_change(spec),
        )
        listing = move.directory / "withheld.areas"
        listing.unlink(missing_ok=True)  # of a try before this one
        preload = {"LD_PRELOAD": str(criu.withheld), "MIGRATE_WITHHELD": str(listing)} if criu.withheld else {}
        plan = {
            "binary": str(criu.binary),
            "environment": preload if record.lazy else {},
            "request": base64.b64encode(request).decode(),
            "neighbours": str(move.images / "neighbours.json"),
            "stdin": str(move.images / "stdin.bin"),
            "link": dataclasses.asdict(network.link_plan(spec, self._config.bridge)),
        }
        try:
            self._ended.refuse(record.migration_id, ROLE)  # Finish may have come since; if it comes now, it rolls back
            monitor.request("dump", timeout_s=DUMP_LIMIT_S, plan=plan)
            pids = self._engine.cgroup(container_id).procs()
            looked = sender.request(
                "look", images_dir=str(move.images), pids=pids, withheld=str(listing) if plan["environment"] else ""
            )
            self._ended.refuse(record.migration_id, ROLE)
            # Now: the tasks stand still, and no mount changes any more.
            handover["mounts"] = self._mount_flags(container_id, int(status["pid"]))
            (move.images / "handover.json").write_text(json.dumps(handover))
            held: list[dict[str, Any]] = []
            marks: list[dict[str, Any]] = list(looked["marks"])

            def send_meanwhile() -> None:
                marks.extend(sender.request("rest", images_dir=str(move.images), postcopy=postcopy)["marks"])
                held.extend(inside.held_in_trees(pids, roots))
                sender.request("files", roots=roots, held=held)

            with ThreadPoolExecutor(1) as meanwhile:  # what CRIU itself does to the files meanwhile, final finds
                ahead = meanwhile.submit(send_meanwhile)
                begun = {"name": "begin dumped", "unix_ns": time.time_ns()}
                try:
                    marks.extend([begun, *monitor.request("hold", timeout_s=DUMP_LIMIT_S)["marks"]])
                except BaseException:
                    sender.interrupt()
                    raise
                ahead.result()
            return sorted(marks, key=lambda mark: int(mark["unix_ns"])), held
        except MonitorError as exc:
            self._ended.refuse(record.migration_id, ROLE)  # then that is the reason
            raise criu_error("dump", move.images / "dump.log", exc) from exc

    # ------------------------------------------------------------ parts

    def _external(self, spec: ContainerSpec, pid: int) -> list[tuple[str, str, str]]:
        devices = init.external_mounts((each.source, each.target) for each in spec.isolation.devices)
        try:
            return devices + mounted.external(spec, self._config.staging_dir / spec.id, mounted.real_point(pid))
        except OSError as exc:
            raise WrongState(f"a mount of container {spec.name} is not where it was made: {exc}") from exc

    def _mount_flags(self, container_id: str, pid: int) -> dict[str, mount_flags.Flags]:
        try:
            return mount_flags.of_tasks(pid, self._engine.cgroup(container_id).procs())
        except OSError as exc:
            raise WrongState(f"the mounts of container {container_id} cannot be read: {exc}") from exc
