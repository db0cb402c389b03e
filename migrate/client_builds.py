"""The client library's call for builds; part of migrate.client.Client."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeAlias

import grpc

from migrate import records, wire
from migrate.errors import MigrateError, Unreachable
from protos import agent_pb2, coordinator_pb2_grpc

Happening: TypeAlias = "records.BuildStep | records.BuildStepDone | records.BuildWarning | records.Output"


class Building:
    """A build being followed: iterate over what happens; at the end `image` is set, and a failure raised.

    Leaving the iteration ends the build.
    """

    def __init__(
        self,
        native: Callable[[grpc.RpcError], MigrateError],
        method: Any,
        start: agent_pb2.BuildStart,
        context: Iterable[bytes],
    ) -> None:
        self.image: records.Image | None = None
        self._native = native
        self._unreadable: list[Exception] = []
        self._call = method(self._requests(start, context))

    def __iter__(self) -> Iterator[Happening]:
        try:
            for event in self._call:
                if event.HasField("done"):
                    self.image = wire.image(event.done)
                    return
                yield wire.build_event(event)
        except grpc.RpcError as exc:
            if self._unreadable:
                raise self._unreadable[0] from exc
            raise self._native(exc) from exc
        finally:
            self._call.cancel()  # nothing once it has ended
        raise Unreachable("the stream ended before the build", touched="something")

    def _requests(self, start: agent_pb2.BuildStart, context: Iterable[bytes]) -> Iterator[agent_pb2.BuildChunk]:
        yield agent_pb2.BuildChunk(start=start)
        size = 0
        try:
            for data in context:
                size += len(data)
                yield agent_pb2.BuildChunk(data=data)
        except (OSError, MigrateError) as exc:
            self._unreadable.append(exc)  # in gRPC's thread, which tells nobody why
            raise
        yield agent_pb2.BuildChunk(end=size)


class BuildCalls:
    """What a client asks about builds."""

    _builds: coordinator_pb2_grpc.FleetBuildsStub

    def _native(self, error: grpc.RpcError) -> MigrateError:
        raise NotImplementedError  # the client's

    def build(self, wanted: records.Build, context: Iterable[bytes]) -> Building:
        """Build an image; `context` is a plain tar in pieces (migrate.context.pack makes one). Follow it by iterating."""
        return Building(self._native, self._builds.Build, wire.build_start(wanted), context)
