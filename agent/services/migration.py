"""gRPC service Migration: unpack, call the handover, pack. What it does is in agent/handover."""

from __future__ import annotations

import dataclasses
import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

import grpc

from agent.config import AgentConfig
from agent.engine import device_access
from agent.engine.container import Engine
from agent.engine.spec import Device, Mount, Port
from agent.engine.state import State
from agent.errors import InvalidArgument, NotFound, TransferError
from agent.handover import kept_logs, rehearsals
from agent.handover.conflicts import conflicts
from agent.handover.link_probe import LinkProbe
from agent.handover.source import Source
from agent.handover.target import Target
from agent.memory.policy import Goal
from agent.scan.finding import Blocker
from agent.services import convert
from agent.setup import compared
from agent.storage.images import ImageStore
from migrate.rpc import messages
from protos import agent_pb2 as pb
from protos import agent_pb2_grpc, types_pb2

Progress = Callable[[Mapping[str, Any]], None]


class MigrationService(agent_pb2_grpc.MigrationServicer):
    """This host's part in moves."""

    def __init__(
        self, config: AgentConfig, engine: Engine, images: ImageStore, source: Source, target: Target, probe: LinkProbe
    ) -> None:
        self._config, self._engine, self._images = config, engine, images
        self._source, self._target, self._probe = source, target, probe

    # ------------------------------------------------------------ source

    def Describe(self, request: pb.DescribeRequest, context: grpc.ServicerContext) -> pb.Description:
        seen = self._source.describe(request.container_id, request.epoch)
        return pb.Description(
            spec=convert.spec_to_proto(seen.spec),
            state=convert.state_to_proto(seen.state),
            memory_bytes=seen.memory_bytes,
            layer_bytes=seen.layer_bytes,
            tasks=seen.tasks,
            blockers=[convert.blocker_to_proto(each) for each in seen.blockers],
            lsm_label=compared.lsm_label(seen.pid) if seen.pid else "",
            image=convert.image_to_proto(self._images.get(seen.spec.image_digest)),
            volumes=[convert.volume_to_proto(each) for each in seen.volumes],
        )

    def PrepareTunnel(
        self, request: pb.PrepareTunnelRequest, context: grpc.ServicerContext
    ) -> pb.PrepareTunnelResponse:
        key = self._source.prepare_tunnel(
            request.migration_id, request.epoch, request.container_id, rehearsal=request.rehearsal
        )
        return pb.PrepareTunnelResponse(public_key=key)

    def OpenTunnel(self, request: pb.OpenTunnelRequest, context: grpc.ServicerContext) -> pb.OpenTunnelResponse:
        opened = self._source.open_tunnel(
            request.migration_id,
            request.epoch,
            certificate=request.certificate,
            address=request.address,
            port=request.port,
            user=request.user,
            host_keys=list(request.host_keys),
            compress=request.transfer.compress or "auto",
            bandwidth=request.transfer.bandwidth,
            connections=request.transfer.connections or 1,
        )
        return pb.OpenTunnelResponse(
            connect_s=opened["connect_s"], round_trip_s=opened["round_trip_s"], cipher=opened["cipher"]
        )

    def SetBandwidth(self, request: pb.SetBandwidthRequest, context: grpc.ServicerContext) -> pb.SetBandwidthResponse:
        self._source.set_bandwidth(request.migration_id, request.epoch, request.bandwidth)
        return pb.SetBandwidthResponse()

    def SendLayers(self, request: pb.SendLayersRequest, context: grpc.ServicerContext) -> Iterator[types_pb2.Progress]:
        def work(report: Progress) -> dict[str, Any]:
            sent = self._source.send_layers(request.migration_id, request.epoch, list(request.layers), report)
            return {"text": f"{len(request.layers)} layers", "done_bytes": sent}

        for _, facts in _streamed(work):
            yield _progress("layers", facts)

    def Precopy(self, request: pb.PrecopyRequest, context: grpc.ServicerContext) -> Iterator[types_pb2.Progress]:
        def work(report: Progress) -> dict[str, Any]:
            options = request.precopy
            goal = Goal(
                max_downtime_s=request.max_downtime_s or Goal.max_downtime_s,
                binding=options.binding,
                max_rounds=options.max_rounds or request.max_rounds or Goal.max_rounds,
                timeout_s=options.timeout_s,
                pause=options.on_timeout == "pause",
                postcopy=options.on_timeout == "post-copy",
                throttle=options.throttle,
                fixed_s=options.fixed_s or Goal.fixed_s,
            )
            return self._source.precopy(request.migration_id, request.epoch, goal, report)

        for _, facts in _streamed(work):
            yield _progress("precopy", facts)

    def Hold(self, request: pb.HoldRequest, context: grpc.ServicerContext) -> Iterator[types_pb2.Progress]:
        def work(report: Progress) -> dict[str, Any]:
            return self._source.hold(request.migration_id, request.epoch, report)

        for _, facts in _streamed(work):
            yield _progress("hold", facts)

    def Switch(self, request: pb.SwitchRequest, context: grpc.ServicerContext) -> pb.SwitchResponse:
        self._source.switch_over(request.migration_id, request.epoch)
        return pb.SwitchResponse()

    def Freeze(self, request: pb.FreezeRequest, context: grpc.ServicerContext) -> Iterator[pb.FreezeEvent]:
        def work(report: Progress) -> Any:
            return self._source.freeze(request.migration_id, request.epoch, report, postcopy=request.postcopy)

        for last, facts in _streamed(work):
            if not last:
                yield pb.FreezeEvent(progress=_progress("freeze", facts))
                continue
            yield pb.FreezeEvent(
                result=pb.FreezeResult(
                    marks=_marks(facts.marks),
                    sent_bytes=facts.sent_bytes,
                    memory_pages=facts.memory_pages,
                    criu_stats=facts.criu_stats,
                    digest=facts.digest,
                    travelled=types_pb2.Travelled(**facts.travelled),
                    later_bytes=facts.later_bytes,
                )
            )

    def SendRest(self, request: pb.SendRestRequest, context: grpc.ServicerContext) -> Iterator[types_pb2.Progress]:
        def work(report: Progress) -> dict[str, Any]:
            sent = self._source.send_rest(request.migration_id, request.epoch, report, complete=request.complete)
            return {
                "text": f"{sent['pages']} pages, {sent['asked']} of them waited for",
                "done_bytes": sent["bytes"],
                "facts": sent,
            }

        for _, facts in _streamed(work):
            yield _progress("rest", facts)

    def EndExec(self, request: pb.EndExecRequest, context: grpc.ServicerContext) -> pb.EndExecResponse:
        ended = self._source.end_exec(request.migration_id, request.epoch)
        return pb.EndExecResponse(ended=[pb.EndedExec(**dataclasses.asdict(one)) for one in ended])

    # ------------------------------------------------------------ target

    def Accept(self, request: pb.AcceptRequest, context: grpc.ServicerContext) -> pb.AcceptResponse:
        accepted = self._target.accept(
            request.migration_id,
            request.epoch,
            convert.spec_from_proto(request.spec),
            convert.image_from_proto(request.image),
            request.memory_bytes,
            request.source_host,
            convert.volumes_from_proto(request.volumes),
            rehearsal=request.rehearsal,
            connections=request.connections or 1,
        )
        return pb.AcceptResponse(
            missing_layers=accepted.missing_layers,
            restore_mode=accepted.restore_mode,
            connections=request.connections or 1,
        )

    def Restore(self, request: pb.RestoreRequest, context: grpc.ServicerContext) -> pb.RestoreResponse:
        restored = self._target.restore(request.migration_id, request.epoch, request.digest)
        return pb.RestoreResponse(
            pid=restored.pid, marks=_marks(restored.marks), criu_stats=restored.criu_stats, mode=restored.mode
        )

    def Try(self, request: pb.TryRequest, context: grpc.ServicerContext) -> pb.TryResponse:
        tried = self._target.try_out(request.migration_id, request.epoch)
        return pb.TryResponse(
            passed=tried.passed, text=tried.text, health=tried.health, tasks=tried.tasks, marks=_marks(tried.marks)
        )

    def Reopen(self, request: pb.ReopenRequest, context: grpc.ServicerContext) -> pb.ReopenResponse:
        return pb.ReopenResponse(needed=self._target.reopen(request.migration_id, request.epoch))

    # ------------------------------------------------------------ before a move

    def ExpectProbe(self, request: pb.ProbeRequest, context: grpc.ServicerContext) -> pb.ExpectProbeResponse:
        self._probe.expect(request.probe_id)
        return pb.ExpectProbeResponse()

    def PrepareProbe(self, request: pb.ProbeRequest, context: grpc.ServicerContext) -> pb.PrepareTunnelResponse:
        return pb.PrepareTunnelResponse(public_key=self._probe.prepare(request.probe_id))

    def RunProbe(self, request: pb.RunProbeRequest, context: grpc.ServicerContext) -> pb.RunProbeResponse:
        speed = self._probe.run(
            request.probe_id,
            certificate=request.tunnel.certificate,
            address=request.tunnel.address,
            port=request.tunnel.port,
            user=request.tunnel.user,
            host_keys=list(request.tunnel.host_keys),
        )
        return pb.RunProbeResponse(**dataclasses.asdict(speed))

    # ------------------------------------------------------------ both

    def Finish(self, request: pb.FinishRequest, context: grpc.ServicerContext) -> pb.FinishResponse:
        if request.role not in ("source", "target"):
            raise InvalidArgument(f"role is source or target, not {request.role!r}")
        side = self._target if request.role == "target" else self._source
        marks, left_over = side.finish(
            request.migration_id, request.epoch, request.container_id, committed=request.committed
        )
        return pb.FinishResponse(marks=_marks(marks), left_over=left_over)

    def Where(self, request: pb.WhereRequest, context: grpc.ServicerContext) -> pb.WhereResponse:
        answer = pb.WhereResponse(
            blockers=[convert.blocker_to_proto(each) for each in self._why_not(request)],
            missing_layers=self._images.missing(request.layers),
        )
        with suppress(NotFound):
            status = self._engine.inspect(request.container_id)
            answer.present = True
            # Killed while they stood still: their monitor and its CRIU wait for an end of the move, and say nothing of it.
            killed = (
                status.state is State.RUNNING and status.role and not self._engine.cgroup(status.spec.id).populated()
            )
            answer.state = convert.state_to_proto(State.EXITED if killed else status.state)
            answer.epoch = status.epoch
            answer.migration_id = status.migration_id
            answer.role = status.role
            answer.rehearsal = rehearsals.is_one(self._config.moves_dir, status.migration_id, status.role)
            missing, answer.missing_unknown = self._missing(request.container_id)
            answer.missing.extend(missing)
        return answer

    def _why_not(self, request: pb.WhereRequest) -> Iterator[Blocker]:
        """What the container that the request describes would not have here."""
        for port in self._engine.ports.blockers([messages.record(Port, one) for one in request.ports]):
            yield Blocker(check="port", what=port.message, remedy=port.hint)
        mounts = [messages.record(Mount, one) for one in request.mounts]
        for what, remedy in self._target.why_not_mounts(mounts, convert.volumes_from_proto(request.volumes)):
            yield Blocker(
                check="bind-source" if what.startswith("bind source ") else "volume", what=what, remedy=remedy
            )
        for lacking in device_access.missing([messages.record(Device, one) for one in request.devices]):
            yield Blocker(check="device", what=lacking.message, remedy=lacking.hint)
        if request.name or request.address:
            yield from conflicts(
                request.container_id,
                request.name,
                request.address,
                request.mac,
                [status.spec for status in self._engine.list()],
                compared.bridge_addresses(self._config.bridge),
            )

    def Logs(self, request: pb.MoveLogsRequest, context: grpc.ServicerContext) -> pb.MoveLogs:
        found = kept_logs.of(self._config, request.migration_id)
        return pb.MoveLogs(logs=[pb.MoveLog(name=name, tail=tail) for name, tail in found.items()])

    def _missing(self, container_id: str) -> tuple[list[pb.MissingMemory], str]:
        """(what it lacks, why that is not known)."""
        try:
            found = self._target.lacking(container_id)
        except TransferError as exc:
            return [], exc.message
        return [
            pb.MissingMemory(
                task=each.task,
                bytes=each.size_bytes,
                program=each.program,
                range_count=each.range_count,
                ranges=[pb.MissingRange(start=r.start, end=r.end, area=r.area) for r in each.ranges],
            )
            for each in found
        ], ""


def _streamed(work: Callable[[Progress], Any]) -> Iterator[tuple[bool, Any]]:
    """Run `work` in a thread; yield (False, facts) for what it reports, then (True, its result). Its exception is raised here."""
    reports: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()

    def run() -> None:
        try:
            reports.put(("result", work(lambda facts: reports.put(("report", facts)))))
        except BaseException as exc:  # noqa: BLE001  raised again in the caller's thread
            reports.put(("error", exc))

    threading.Thread(target=run, daemon=True).start()
    while True:
        kind, value = reports.get()
        if kind == "error":
            raise value
        yield kind == "result", value
        if kind == "result":
            return


def _progress(phase: str, facts: Mapping[str, Any]) -> types_pb2.Progress:
    return types_pb2.Progress(
        phase=phase,
        text=facts.get("text", ""),
        done_bytes=int(facts.get("done_bytes", 0)),
        total_bytes=int(facts.get("total_bytes", 0)),
        facts={name: float(value) for name, value in facts.get("facts", {}).items()},
        unix_ns=int(facts.get("unix_ns", 0)),
        verdict=facts.get("verdict", ""),
    )


def _marks(marks: list[dict[str, Any]]) -> list[types_pb2.Mark]:
    return [types_pb2.Mark(name=mark["name"], unix_ns=mark["unix_ns"]) for mark in marks]
