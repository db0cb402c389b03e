"""The client library's calls about a container's life: restart, rename, policies, events; part of migrate.client.Client."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from migrate import wire
from protos import agent_pb2, coordinator_pb2_grpc, types_pb2

if TYPE_CHECKING:
    from migrate.records import Container, Happening, RestartPolicy

QUICK_S = 30.0
LONG_S = 600.0


class LifecycleCalls:
    """A container is named by its name, its id or an unambiguous beginning of its id."""

    _lifecycle: coordinator_pb2_grpc.FleetLifecycleStub

    def _call(self, method: Any, request: Any, timeout_s: float | None) -> Any:
        raise NotImplementedError  # the client's

    def _stream(self, method: Any, request: Any) -> Iterator[Any]:
        raise NotImplementedError  # the client's

    def restart(self, name: str, *, timeout_s: float | None = None, signal: str = "") -> Container:
        """Stop it as `stop` does, where it runs, and start it; an exited one is only started."""
        request = agent_pb2.RestartRequest(
            id=name, timeout_s=timeout_s or 0.0, default_timeout=timeout_s is None, signal=signal
        )
        return wire.container(self._call(self._lifecycle.Restart, request, LONG_S + (timeout_s or 0.0)))

    def rename(self, name: str, new_name: str) -> Container:
        """Also while it runs; refused while it is being moved, and where another container has that name."""
        request = agent_pb2.RenameRequest(id=name, name=new_name)
        return wire.container(self._call(self._lifecycle.Rename, request, QUICK_S))

    def set_restart(self, name: str, policy: RestartPolicy) -> Container:
        """From its next exit on."""
        request = agent_pb2.SetRestartRequest(id=name, restart=types_pb2.RestartPolicy(**policy.to_dict()))
        return wire.container(self._call(self._lifecycle.SetRestart, request, QUICK_S))

    def events(
        self, *, since_unix_ns: int | None = None, until_unix_ns: int = 0, follow: bool = True
    ) -> Iterator[Happening]:
        """What happened on all hosts since then, by time (None: nothing of the past), and with `follow` what happens from now
        on, until `until_unix_ns` (0 = no end). Hosts remember about two thousand events each.
        """
        since = -1 if since_unix_ns is None else since_unix_ns
        request = agent_pb2.EventsRequest(since_unix_ns=since, until_unix_ns=until_unix_ns, follow=follow)
        for event in self._stream(self._lifecycle.Events, request):
            yield wire.happening(event)
