"""The client library: one fleet, through its coordinator's socket.

    with Client() as client:
        client.run(Run(image="redis", name="web1", host="host1"))
        moving = client.move("web1", to="host2")
        for event in moving:
            print(event)
        print(moving.record.facts["downtime_s"])

Every method raises a subclass of MigrateError. A container is named by its name, its id or an unambiguous beginning of
its id. One Client may be used by several threads.
"""

from __future__ import annotations

import os
import queue
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import grpc

from migrate import records, records_check, wire
from migrate.client_builds import BuildCalls, Building
from migrate.client_evacuations import EvacuationCalls
from migrate.client_files import FileCalls
from migrate.client_hosts import HostCalls
from migrate.client_images import ImageCalls
from migrate.client_lifecycle import LifecycleCalls
from migrate.client_policies import PolicyCalls
from migrate.client_rebalance import RebalanceCalls
from migrate.client_schedules import ScheduleCalls
from migrate.client_volumes import VolumeCalls
from migrate.errors import InvalidArgument, MigrateError, NeedsAttention, Unreachable
from migrate.records import Container, Run
from migrate.rpc import channels, messages
from migrate.rpc import errors as rpc_errors
from protos import agent_pb2, coordinator_pb2, coordinator_pb2_grpc, fleet_pb2_grpc, types_pb2

if TYPE_CHECKING:
    from migrate.records import Event, Host, LogLine, Migration, Output, Version
    from migrate.records_check import CheckReport

__all__ = ["Building", "Client", "Moving", "Run", "Session", "find_socket"]

SYSTEM_SOCKET = Path("/run/migrate/coordinator.sock")
LAB_SOCKET = Path("/var/lib/migrate-lab/controller/run/coordinator.sock")
QUICK_S = 30.0  # deadline of calls that change nothing, or little
LONG_S = 600.0  # of calls that start processes or move bytes on a host


def find_socket() -> Path:
    """$MIGRATE_COORDINATOR, else the system's socket where it exists, else the lab's, else the system's."""
    named = os.environ.get("MIGRATE_COORDINATOR")
    if named:
        return Path(named.removeprefix("unix:"))
    return next((path for path in (SYSTEM_SOCKET, LAB_SOCKET) if path.exists()), SYSTEM_SOCKET)


class Client(
    ImageCalls,
    BuildCalls,
    EvacuationCalls,
    FileCalls,
    HostCalls,
    LifecycleCalls,
    PolicyCalls,
    RebalanceCalls,
    ScheduleCalls,
    VolumeCalls,
):
    """Connects with the first call. `target`: path of the coordinator's socket; None finds it (see find_socket)."""

    def __init__(self, target: str | Path | None = None) -> None:
        self.socket = find_socket() if target is None else Path(str(target).removeprefix("unix:"))
        try:
            self._channel = channels.unix_channel(self.socket)
        except ValueError as exc:
            raise InvalidArgument(str(exc), hint="name a shorter path with --coordinator") from exc
        self._fleet = coordinator_pb2_grpc.FleetStub(self._channel)  # type: ignore[no-untyped-call]  # generated
        self._lifecycle = coordinator_pb2_grpc.FleetLifecycleStub(self._channel)  # type: ignore[no-untyped-call]  # generated
        self._files = coordinator_pb2_grpc.FleetFilesStub(self._channel)  # type: ignore[no-untyped-call]  # generated
        self._volumes = coordinator_pb2_grpc.FleetVolumesStub(self._channel)  # type: ignore[no-untyped-call]  # generated
        self._hosts = fleet_pb2_grpc.FleetHostsStub(self._channel)  # type: ignore[no-untyped-call]  # generated
        self._evacuations = fleet_pb2_grpc.FleetEvacuationsStub(self._channel)  # type: ignore[no-untyped-call]  # generated
        self._builds = coordinator_pb2_grpc.FleetBuildsStub(self._channel)  # type: ignore[no-untyped-call]  # generated

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends streams that are still open; moves go on."""
        self._channel.close()

    # ------------------------------------------------------------ fleet

    def version(self) -> Version:
        reply = self._call(self._fleet.Version, coordinator_pb2.VersionRequest(), QUICK_S)
        return records.Version(version=reply.version, protocol=reply.protocol, fleet=reply.fleet)

    def hosts(self, *, facts: bool = True) -> list[Host]:
        """Every host of the fleet; with `facts` each is asked, at the same time."""
        reply = self._call(self._fleet.Hosts, coordinator_pb2.HostsRequest(facts=facts), QUICK_S)
        return [wire.host(one) for one in reply.hosts]

    # ------------------------------------------------------------ containers

    def run(self, wanted: Run) -> Container:
        """Create and start; where that fails, nothing is left behind."""
        return wire.container(self._call(self._fleet.Run, wire.run_request(wanted, create_only=False), LONG_S))

    def create(self, wanted: Run) -> Container:
        return wire.container(self._call(self._fleet.Run, wire.run_request(wanted, create_only=True), LONG_S))

    def containers(self, *, all: bool = False, host: str = "", size: bool = False) -> list[Container]:
        """Those that run, or all. `size`: with layer_bytes.

        Of a host that cannot be reached: what the coordinator knows, in state "unknown".
        """
        reply = self._call(
            self._fleet.Containers, coordinator_pb2.ContainersRequest(all=all, host=host, size=size), QUICK_S
        )
        return [wire.container(one) for one in reply.containers]

    def inspect(self, name: str) -> Container:
        return wire.container(self._call(self._fleet.Inspect, coordinator_pb2.NameRequest(name=name), QUICK_S))

    def start(self, name: str) -> Container:
        return wire.container(self._call(self._fleet.Start, coordinator_pb2.NameRequest(name=name), LONG_S))

    def stop(self, name: str, *, timeout_s: float | None = None, signal: str = "") -> Container:
        """The stop signal, then SIGKILL after `timeout_s` (None = the container's own)."""
        request = coordinator_pb2.StopContainerRequest(
            name=name, timeout_s=timeout_s or 0.0, default_timeout=timeout_s is None, signal=signal
        )
        return wire.container(self._call(self._fleet.Stop, request, LONG_S + (timeout_s or 0.0)))

    def kill(self, name: str, *, signal: str = "SIGKILL") -> None:
        self._call(self._fleet.Kill, coordinator_pb2.KillContainerRequest(name=name, signal=signal), QUICK_S)

    def remove(self, name: str, *, force: bool = False, volumes: bool = False) -> None:
        """`volumes`: its anonymous ones too."""
        request = coordinator_pb2.RemoveContainerRequest(name=name, force=force, volumes=volumes)
        self._call(self._fleet.Remove, request, LONG_S)

    def wait(self, name: str, *, timeout_s: float | None = None) -> Container:
        """Returns when the container has exited, on whatever host that is; None waits for ever."""
        return wire.container(self._call(self._fleet.Wait, coordinator_pb2.NameRequest(name=name), timeout_s))

    def logs(self, name: str, *, follow: bool = False, tail: int = -1, since_unix_ns: int = 0) -> Iterator[LogLine]:
        """What the container wrote; `tail` -1 = all. With `follow` goes on until it exits, through moves."""
        request = coordinator_pb2.ContainerLogsRequest(
            name=name, follow=follow, tail=max(tail, 0), since_unix_ns=since_unix_ns, all=tail < 0
        )
        for chunk in self._stream(self._fleet.Logs, request):
            yield wire.log_line(chunk)

    def exec(
        self,
        name: str,
        argv: Iterable[str],
        *,
        env: Iterable[str] = (),
        cwd: str = "",
        user: str = "",
        tty: bool = False,
        stdin: bool = False,
        rows: int = 0,
        columns: int = 0,
        detach: bool = False,
        privileged: bool = False,
    ) -> Session:
        """Start a command in a running container; what it writes comes from the session. With `detach` it runs on by itself,
        and the session ends when it has begun. `privileged`: with every capability that the container's users can have.
        """
        start = agent_pb2.ExecStart(
            id=name,
            argv=argv,
            env=env,
            cwd=cwd,
            user=user,
            tty=tty,
            stdin=stdin,
            rows=rows,
            columns=columns,
            detach=detach,
            privileged=privileged,
        )
        return Session(self, self._fleet.Exec, start)

    def attach(self, name: str, *, stdin: bool = False, tty: bool = False, rows: int = 0, columns: int = 0) -> Session:
        """The main process's stdio from now on; the exit code at the end is the container's."""
        start = agent_pb2.ExecStart(id=name, stdin=stdin, tty=tty, rows=rows, columns=columns)
        return Session(self, self._fleet.Attach, start)

    def update(self, name: str, **changes: Any) -> Container:
        """Change limits of a container, running or not: fields of records.Limits; 0 takes a limit away.

        Of `device_rates` only the devices and kinds that are named change. What fails changes nothing.
        """
        request = coordinator_pb2.UpdateContainerRequest(
            name=name, limits=wire.limits(records.Limits(**changes)), fields=sorted(changes)
        )
        return wire.container(self._call(self._fleet.Update, request, QUICK_S))

    def pause(self, name: str) -> Container:
        """Stop every process where it is, until `unpause`."""
        return wire.container(self._call(self._fleet.Pause, coordinator_pb2.NameRequest(name=name), QUICK_S))

    def unpause(self, name: str) -> Container:
        return wire.container(self._call(self._fleet.Unpause, coordinator_pb2.NameRequest(name=name), QUICK_S))

    def stats(self, *names: str) -> list[records.Usage]:
        """One sample of each; without names, of every container that runs on a host that answers."""
        reply = self._call(self._fleet.Stats, coordinator_pb2.StatsRequest(names=names), QUICK_S)
        return [wire.usage(one) for one in reply.usages]

    def top(self, name: str) -> list[records.Process]:
        """Its processes, by their pids in the container."""
        reply = self._call(self._fleet.Top, coordinator_pb2.NameRequest(name=name), QUICK_S)
        return [wire.process(one) for one in reply.processes]

    # ------------------------------------------------------------ moves

    def move(
        self,
        container: str,
        *,
        to: str = "",
        constraints: Iterable[str] = (),
        reason: str = "",
        mode: str = "",
        max_downtime_s: float = 0.0,
        dry_run: bool = False,
        request_id: str = "",
        compress: str = "auto",
        bandwidth: int = 0,
        connections: int = 1,
        max_rounds: int = 0,
        timeout_s: float = 0.0,
        on_timeout: str = "abort",
        throttle: bool = False,
        skip: Iterable[str] = (),
        hold: bool = False,
        end_exec: bool = False,
        no_policy: bool = False,
    ) -> Moving:
        """Start a move and follow it. `to` "" = the best host that meets the `constraints` ("disk==ssd"). The same `request_id`
        twice is the same move; `dry_run` only checks.

        `mode`: "auto", "precopy", "stop-and-copy", "postcopy". `max_downtime_s` 0 = 0.3 as a wish; given, it is a limit, and where it is
        not to be met, or `timeout_s` of sending ahead are over, the move ends by `on_timeout`: "abort", "pause" (freeze
        all the same) or "post-copy" (what is left follows when it runs on the target).
        `max_rounds` 0 = the agent's default; `throttle`: less processor time for the container where rounds gain nothing.
        `compress`: "auto", "none", "lz4", "zstd". `bandwidth`: bytes per second, 0 = no limit. `connections`: ssh connections
        beside each other, 1 to 8.
        `skip`: names of checks (docs/check.md) whose findings are not to stop it.
        `hold`: ready, it goes on sending until commit_move(). `end_exec`: exec sessions are ended right before the freeze.
        What is not said here is the policies' to say, unless `no_policy`; `mode` "" = theirs, else "auto".
        """
        request = coordinator_pb2.MoveRequest(
            container=container,
            to=to,
            constraints=constraints,
            reason=reason,
            mode=mode,
            max_downtime_s=max_downtime_s,
            request_id=request_id or os.urandom(16).hex(),
            dry_run=dry_run,
            transfer=types_pb2.TransferOptions(compress=compress, bandwidth=bandwidth, connections=connections),
            precopy=types_pb2.PrecopyOptions(
                max_rounds=max_rounds,
                timeout_s=timeout_s,
                on_timeout=on_timeout,
                throttle=throttle,
                hold=hold,
                end_exec=end_exec,
            ),
            skip=skip,
            no_policy=no_policy,
        )
        return Moving(self, self._fleet.Move, request)

    def rehearse(
        self,
        container: str,
        *,
        to: str = "",
        constraints: Iterable[str] = (),
        reason: str = "",
        mode: str = "auto",
        max_downtime_s: float = 0.0,
        request_id: str = "",
        compress: str = "auto",
        bandwidth: int = 0,
        skip: Iterable[str] = (),
    ) -> Moving:
        """Try a move and follow that: its record is "rehearsed" at the end, and the container where it was. Arguments as of `move`."""
        request = coordinator_pb2.MoveRequest(
            container=container,
            to=to,
            constraints=constraints,
            reason=reason,
            mode=mode,
            max_downtime_s=max_downtime_s,
            request_id=request_id or os.urandom(16).hex(),
            transfer=types_pb2.TransferOptions(compress=compress, bandwidth=bandwidth),
            skip=skip,
        )
        return Moving(self, self._fleet.Rehearse, request)

    def check(
        self,
        container: str,
        *,
        to: str = "",
        constraints: Iterable[str] = (),
        mode: str = "",
        max_downtime_s: float = 0.0,
        bandwidth: int = 0,
        skip: Iterable[str] = (),
        end_exec: bool = False,
    ) -> CheckReport:
        """What speaks against that move and how long it would take; touches nothing. The arguments are those of `move`."""
        request = coordinator_pb2.MoveRequest(
            container=container,
            to=to,
            constraints=constraints,
            mode=mode,
            max_downtime_s=max_downtime_s,
            transfer=types_pb2.TransferOptions(bandwidth=bandwidth),
            precopy=types_pb2.PrecopyOptions(end_exec=end_exec),
            skip=skip,
        )
        return messages.record(records_check.CheckReport, self._call(self._fleet.Check, request, LONG_S))

    def set_migration(self, migration_id: str, *, bandwidth: int) -> str:
        """Change a move that is sending: bytes per second, 0 = no limit. Returns what it does now, for people."""
        request = coordinator_pb2.SetMigrationRequest(migration_id=migration_id, bandwidth=bandwidth)
        return str(self._call(self._fleet.SetMigration, request, LONG_S).text)

    def watch(self, migration_id: str) -> Moving:
        """Follow a move from its beginning."""
        return Moving(self, self._fleet.Watch, coordinator_pb2.WatchRequest(migration_id=migration_id))

    def commit_move(self, migration_id: str) -> str:
        """Let a move that holds switch over; what happens now, for people."""
        request = coordinator_pb2.MigrationRequest(migration_id=migration_id)
        return str(self._call(self._fleet.CommitMove, request, LONG_S).text)

    def undo_move(self, migration_id: str) -> Moving:
        """Of one that succeeded: start the move back, which has an id of its own, and follow it."""
        return Moving(self, self._fleet.UndoMove, coordinator_pb2.MigrationRequest(migration_id=migration_id))

    def cancel(self, migration_id: str) -> tuple[str, str]:
        """Ask for the end of a move; returns its state and what that means. Refused past the pivot."""
        reply = self._call(self._fleet.Cancel, coordinator_pb2.CancelRequest(migration_id=migration_id), LONG_S)
        return reply.state, reply.text

    def repair(self, migration_id: str, *, dry_run: bool = False, keep: str = "") -> Moving:
        """Finish or undo what a crash or an error left; `dry_run` says what would be done, and raises only where nothing can be.

        `keep`: "source" or "target", whose copy lives, if you know.
        """
        request = coordinator_pb2.RepairRequest(migration_id=migration_id, dry_run=dry_run, keep=keep)
        return Moving(self, self._fleet.Repair, request, only_looks=dry_run)

    def resume(self, migration_id: str) -> Moving:
        """Follow a move that waits, or go on with one that is past its pivot and needs attention. Raises NeedsAttention where there is
        nothing to go on with: it says what there is to decide.
        """
        record = self.migration(migration_id)
        if record.state != "needs-attention":
            return self.watch(migration_id)
        if record.step == "rest" or not any(row.event == "committed" for row in record.journal):
            why, hint, detail = ("", "", "")
            if record.failure:
                why, hint, detail = record.failure.message, record.failure.hint, record.failure.detail
            raise NeedsAttention(
                f"nothing goes on by itself: {why}", hint=hint or f"migrate repair {record.id}", detail=detail
            )
        return self.repair(migration_id)

    def migrations(self, *, container: str = "", limit: int = 0, active: bool = False) -> list[Migration]:
        """Newest first; `limit` 0 = the coordinator's default."""
        request = coordinator_pb2.MigrationsRequest(container=container, limit=limit, active=active)
        return [wire.migration(one) for one in self._call(self._fleet.Migrations, request, QUICK_S).migrations]

    def migration(self, migration_id: str) -> Migration:
        """One move with its journal; an unambiguous beginning of the id is enough."""
        request = coordinator_pb2.MigrationRequest(migration_id=migration_id)
        return wire.migration(self._call(self._fleet.Migration, request, QUICK_S))

    def migration_logs(self, migration_id: str) -> tuple[list[records.MoveLog], list[str]]:
        """(what both hosts have kept of a move's logs, why a host said nothing)."""
        request = coordinator_pb2.MigrationRequest(migration_id=migration_id)
        found = self._call(self._fleet.MigrationLogs, request, LONG_S)
        logs = [
            records.MoveLog(name=log.name, host=log.host, text=log.tail.decode(errors="replace")) for log in found.logs
        ]
        return logs, list(found.silent)

    # ------------------------------------------------------------ transport

    def _call(self, method: Any, request: Any, timeout_s: float | None) -> Any:
        try:
            return method(request, timeout=timeout_s)
        except grpc.RpcError as exc:
            raise self._native(exc) from exc

    def _stream(self, method: Any, request: Any) -> Iterator[Any]:
        """The call begins now, not with the first answer that somebody asks for."""
        return self._answers(method(request))

    def _answers(self, call: Any) -> Iterator[Any]:
        try:
            yield from call
        except grpc.RpcError as exc:
            raise self._native(exc) from exc
        finally:
            call.cancel()  # nothing once it has ended; else the caller stopped reading

    def _native(self, error: grpc.RpcError) -> MigrateError:
        """The error that was meant; where the coordinator did not answer at all, why."""
        native = rpc_errors.to_native(error, host="the coordinator")
        said_so = any(key == rpc_errors.DETAIL_KEY for key, _ in error.trailing_metadata() or ())
        if isinstance(native, Unreachable) and not said_so:
            return _why_unreachable(self.socket) or native
        return native


def _why_unreachable(path: Path) -> Unreachable | None:
    """Try the socket by hand: gRPC's text says too little. None where it does answer."""
    import socket  # here: its constants take milliseconds, and nobody needs them while the coordinator answers

    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.settimeout(2)
            probe.connect(str(path))
        except FileNotFoundError:
            return Unreachable(
                f"no coordinator at {path}",
                hint="a fleet on this machine: migrate lab up; another: --coordinator SOCKET or $MIGRATE_COORDINATOR",
                touched="nothing",
            )
        except PermissionError:
            hint = "run it as root, or as a member of the socket's group"
            return Unreachable(f"no permission to use {path}", hint=hint, touched="nothing")
        except OSError as exc:
            hint = "the coordinator has ended; start it: migrate-coordinator --config FILE, or migrate lab up"
            return Unreachable(f"nobody listens at {path}: {exc.strerror}", hint=hint, touched="nothing")
    return None


class Session:
    """A process's stdio: iterate over what it writes, send what it reads. Ends with `exit_code` set.

    Several threads may send while one iterates.
    """

    def __init__(self, client: Client, method: Any, start: agent_pb2.ExecStart) -> None:
        self.exit_code: int | None = None
        self.started = False
        self._client = client
        self._requests: queue.SimpleQueue[agent_pb2.ExecInput | None] = queue.SimpleQueue()
        self._requests.put(agent_pb2.ExecInput(start=start))
        self._call = method(iter(self._requests.get, None))
        self._replies = iter(self._call)
        self._early: list[Output] = []

    def __iter__(self) -> Iterator[Output]:
        try:
            while self.exit_code is None:
                yield from self._early
                self._early.clear()
                output = self._receive()
                if output is not None:
                    yield output
        finally:
            self.close()

    def wait_started(self) -> None:
        """Returns when the process runs (exec) or its stdio is connected (attach); keeps output for the iteration."""
        while not self.started and self.exit_code is None:
            output = self._receive()
            if output is not None:
                self._early.append(output)

    def send(self, data: bytes) -> None:
        self._requests.put(agent_pb2.ExecInput(stdin=data))

    def close_stdin(self) -> None:
        """The process reads end-of-file; its output still comes."""
        self._requests.put(agent_pb2.ExecInput(close_stdin=True))

    def resize(self, rows: int, columns: int) -> None:
        self._requests.put(agent_pb2.ExecInput(resize=agent_pb2.WindowSize(rows=rows, columns=columns)))

    def signal(self, name: str) -> None:
        """ "SIGINT": to the process."""
        self._requests.put(agent_pb2.ExecInput(signal=name))

    def close(self) -> None:
        """Let go. A command of exec ends with it; an attached container does not."""
        self._requests.put(None)
        self._call.cancel()

    def _receive(self) -> Output | None:
        try:
            reply = next(self._replies)
        except StopIteration:
            raise Unreachable("the stream ended without an exit code", touched="something") from None
        except grpc.RpcError as exc:
            raise self._client._native(exc) from exc
        self.started = True
        kind = reply.WhichOneof("kind")
        if kind == "exit_code":
            self.exit_code = reply.exit_code
        elif kind in ("stdout", "stderr"):
            return records.Output(stream=kind, data=getattr(reply, kind))
        return None


class Moving:
    """A move being followed: iterate over its events; at the end `record` is set, and a failure raised.

    Leaving the iteration does not stop the move.
    """

    def __init__(self, client: Client, method: Any, request: Any, *, only_looks: bool = False) -> None:
        """`only_looks`: how the move stands is what was asked for, and no failure."""
        self._only_looks = only_looks
        self.migration_id = ""
        self.record: Migration | None = None
        self._client = client
        self._call = method(request)

    def __iter__(self) -> Iterator[Event]:
        return self

    def __next__(self) -> Event:
        if self.record is not None:
            raise StopIteration(self.record)
        try:
            while True:
                message = next(self._call)
                self.migration_id = message.migration_id or self.migration_id
                kind = message.WhichOneof("kind")
                if kind == "done":
                    return self._finish(message.done)
                if kind == "progress":
                    return wire.progress(message.migration_id, message.progress)
                if kind == "step":
                    return wire.step(message.migration_id, message.step)
        except StopIteration:
            if self.record is not None:
                raise
            hint = f"migrate migrations show {self.migration_id}" if self.migration_id else "migrate migrations"
            raise Unreachable(
                "the coordinator ended the stream before the move", hint=hint, touched="something"
            ) from None
        except grpc.RpcError as exc:
            native = self._client._native(exc)
            if self.migration_id and isinstance(native, Unreachable):
                raise Unreachable(
                    f"lost sight of move {self.migration_id}: {native.message}",
                    hint="it is in the coordinator's journal, and is finished or undone when that is back: "
                    f"migrate migrations show {self.migration_id}",
                    touched="something",
                ) from exc
            raise native from exc

    def result(self) -> Migration:
        """Follow to the end without looking at events; raises the reason where the move did not succeed."""
        for _ in self:
            pass
        assert self.record is not None, "iteration ends with a record or an error"
        return self.record

    def close(self) -> None:
        """Stop following."""
        self._call.cancel()

    def _finish(self, done: coordinator_pb2.MigrationRecord) -> Event:
        self.record = wire.migration(done)
        self._call.cancel()
        failure = wire.failure(done)
        if failure is not None and not self._only_looks:
            raise failure
        raise StopIteration(self.record)
