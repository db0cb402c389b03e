"""gRPC service Host: what this machine is and can do."""

from __future__ import annotations

import os
import platform
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import grpc

from agent import __version__
from agent.config import AgentConfig
from agent.engine import network
from agent.engine.container import Engine
from agent.engine.state import State
from agent.errors import Unsupported
from agent.linux import meminfo
from agent.services import convert
from agent.setup import compared, criu, probe, probe_host, sshd
from agent.setup.capability import Capability
from migrate.rpc.version import OURS
from protos import agent_pb2, agent_pb2_grpc

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class HostService(agent_pb2_grpc.HostServicer):
    """Probes once, in the background, for they take a second, and not what is `known`; memory and disk are read anew
    for each answer.
    """

    def __init__(self, config: AgentConfig, engine: Engine, known: Sequence[Capability]) -> None:
        self._config, self._engine, self._known = config, engine, known
        self._capabilities: list[Capability] = []
        self._instructions = probe_host.instructions()
        self._probed = threading.Event()
        self._boot_id = BOOT_ID.read_text().strip()
        self._started_unix_ns = time.time_ns()
        threading.Thread(target=self._probe, name="probe", daemon=True).start()

    def Beat(self, request: agent_pb2.BeatRequest, context: grpc.ServicerContext) -> agent_pb2.BeatResponse:
        return agent_pb2.BeatResponse(
            host=self._config.host, boot_id=self._boot_id, started_unix_ns=self._started_unix_ns
        )

    def Trust(self, request: agent_pb2.TrustRequest, context: grpc.ServicerContext) -> agent_pb2.TrustResponse:
        sshd.trust(request.authorities)
        return agent_pb2.TrustResponse()

    def Facts(self, request: agent_pb2.FactsRequest, context: grpc.ServicerContext) -> agent_pb2.HostFacts:
        self._probed.wait(30)
        try:
            version = criu.locate(self._config.criu).version_text
        except Unsupported:
            version = ""
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        disk = os.statvfs(self._config.state_dir)
        return agent_pb2.HostFacts(
            host=self._config.host,
            agent_version=__version__,
            protocol=OURS.major,
            protocol_minor=OURS.minor,
            kernel=platform.release(),
            architecture=platform.machine(),
            criu_version=version,
            memory_total_bytes=total,
            memory_available_bytes=meminfo.available_bytes(),
            disk_available_bytes=disk.f_bavail * disk.f_frsize,
            capabilities=[convert.capability_to_proto(c) for c in self._capabilities],
            containers_running=sum(status.state == State.RUNNING for status in self._engine.list()),
            bridge=self._config.bridge,
            cpus=len(os.sched_getaffinity(0)),
            instructions=self._instructions,
            cgroup=compared.cgroup_kind(),
            lsm=compared.lsm(),
            bridge_addresses=compared.bridge_addresses(self._config.bridge),
            bridge_mtu=self._bridge_mtu(),
            processor=compared.processor(),
            unix_ns=time.time_ns(),
            boot_id=Path("/proc/sys/kernel/random/boot_id").read_text().strip(),
        )

    def _bridge_mtu(self) -> int:
        """0 where there is no such bridge."""
        try:
            return network.bridge_mtu(self._config.bridge)
        except network.NetworkError:
            return 0

    def _probe(self) -> None:
        try:
            self._capabilities = probe.probe(
                run_dir=self._config.run_dir,
                state_dir=self._config.state_dir,
                criu_path=self._config.criu,
                known=self._known,
            )
        finally:
            self._probed.set()
