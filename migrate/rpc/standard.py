"""The services that every gRPC tool expects of a server: health (grpc.health.v1) and reflection (grpc.reflection.v1alpha).

So `grpcurl -unix ... list` and `grpc_health_probe -addr unix:...` work without our protos.
"""

from __future__ import annotations

from collections.abc import Iterable
from types import ModuleType
from typing import Any

from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection


class StandardServices:
    """Of one server. `protos`: the generated modules (`*_pb2`) whose services it has."""

    def __init__(self, server: Any, protos: Iterable[ModuleType]) -> None:
        self.names = sorted(
            service.full_name for module in protos for service in module.DESCRIPTOR.services_by_name.values()
        )
        self._health = health.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        own = (health.SERVICE_NAME, reflection.SERVICE_NAME)
        reflection.enable_server_reflection((*self.names, *own), server)
        for name in self.names:
            self._health.set(name, health_pb2.HealthCheckResponse.NOT_SERVING)
        self._health.set(health.OVERALL_HEALTH, health_pb2.HealthCheckResponse.NOT_SERVING)

    def serving(self) -> None:
        """All that was left by the last life has been taken up."""
        for name in (health.OVERALL_HEALTH, *self.names):
            self._health.set(name, health_pb2.HealthCheckResponse.SERVING)

    def ending(self) -> None:
        """For good: who watches hears it before the connection goes."""
        self._health.enter_graceful_shutdown()
