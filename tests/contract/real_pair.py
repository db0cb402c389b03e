"""Two hosts of a lab with nothing faked: the agents' own sockets, sshd between them, CRIU, containers of busybox."""

from __future__ import annotations

import itertools
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from agent.engine.spec import ContainerSpec, IdRange, Network
from agent.services import convert
from migrate.client import Client
from migrate.coordinator.move import HostAddress
from migrate.errors import NotFound
from migrate.lab import down, images, nodes, up
from migrate.lab.layout import Lab
from migrate.lab.provision import SSH_PORT, USER
from migrate.rpc import channels, errors
from migrate.tunnel.pki import CertificateAuthority, Signer
from protos import agent_pb2, agent_pb2_grpc

IMAGE = "busybox"
TICKER = "while :; do echo tick > /dev/stdout; sleep 0.05; done"
DEADLINE_S = 60.0
HOSTS = {"source": "host1", "target": "host2"}
_numbers = itertools.count(1)


@contextmanager
def real_lab(prefix: str) -> Iterator[Lab]:
    """Up, with the image on host1; gone at the end."""
    down.down(prefix, force=True)
    try:
        lab = up.up(prefix, hosts=2, criu=os.environ.get("MIGRATE_CRIU", ""), say=lambda _: None)
        with Client(lab.socket) as client, images.busybox_rootfs().open("rb") as tar:
            client.import_image(tar, IMAGE, host="host1")
        yield lab
    finally:
        down.down(prefix, force=True)


class RealPair:
    """`source` and `target` are stubs of the Migration service of host1 and host2."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._channels = [channels.unix_channel(_agent_socket(lab, name)) for name in ("host1", "host2")]
        self.source, self.target = (agent_pb2_grpc.MigrationStub(channel) for channel in self._channels)
        self.containers = [agent_pb2_grpc.ContainersStub(channel) for channel in self._channels]
        self._made: list[str] = []
        self._signer = Signer(CertificateAuthority.load_or_create(lab.node_dir("controller") / "var"))

    def run_container(self, **changes: Any) -> str:
        """`changes`: of its ContainerSpec."""
        image = agent_pb2_grpc.ImagesStub(self._channels[0]).Inspect(agent_pb2.InspectImageRequest(name=IMAGE))
        number = next(_numbers)
        spec = ContainerSpec(
            id=uuid.uuid4().hex,
            name=f"c{number}",
            image=IMAGE,
            image_digest=image.digest,
            layers=tuple(image.layers),
            argv=("/bin/sh", "-c", TICKER),
            env=("PATH=/bin",),
            cwd="/",
            user="",
            hostname=f"c{number}",
            ids=IdRange(base=1_000_000),
            network=Network(address=f"10.88.77.{number}/16", mac=f"02:42:0a:58:4d:{number:02x}", gateway=""),
        )
        spec = replace(spec, **changes)
        with errors.native():
            self.containers[0].Create(agent_pb2.CreateRequest(spec=convert.spec_to_proto(spec), epoch=1), timeout=30)
            self._made.append(spec.id)
            self.containers[0].Start(agent_pb2.StartRequest(id=spec.id), timeout=30)
        return spec.id

    def address(self, role: str) -> HostAddress:
        node = self._lab.node(HOSTS[role])
        key = self._lab.node_dir(node.name) / "etc/migrate/ssh_host_ed25519_key.pub"
        return HostAddress(address=node.address, port=SSH_PORT, user=USER, host_keys=(key.read_text().strip(),))

    def certificate(self, public_key: str, migration_id: str, sender: str) -> str:
        return self._signer.sign_bulk(public_key, migration_id, self._lab.node(HOSTS[sender]).address)

    def logs(self, host: int, container_id: str) -> bytes:
        request = agent_pb2.LogsRequest(id=container_id, all=True)
        return b"".join(chunk.data for chunk in self.containers[host].Logs(request, timeout=30))

    def close(self) -> None:
        """Ends what the test left: containers, and the moves that hold them."""
        for stub, containers in zip((self.source, self.target), self.containers, strict=True):
            for container_id in self._made:
                _clear(stub, containers, container_id)
        for channel in self._channels:
            channel.close()


def _clear(stub: Any, containers: Any, container_id: str) -> None:
    where = stub.Where(agent_pb2.WhereRequest(container_id=container_id), timeout=DEADLINE_S)
    if where.present and where.migration_id:
        request = agent_pb2.FinishRequest(
            migration_id=where.migration_id,
            epoch=where.epoch,
            container_id=container_id,
            committed=False,
            role=where.role,
        )
        stub.Finish(request, timeout=DEADLINE_S)
    with suppress(NotFound), errors.native():
        containers.Remove(agent_pb2.RemoveRequest(id=container_id, force=True), timeout=DEADLINE_S)


def _agent_socket(lab: Lab, host: str) -> Path:
    return _root(lab, host) / "run/migrate/agent.sock"


def _root(lab: Lab, host: str) -> Path:
    """The host's own view of files: its /run is a file system of its own."""
    programs = nodes.states(lab.state_dir)[host].programs
    pid = next(program.pid for program in programs if program.name == "agent")
    return Path(f"/proc/{pid}/root")
