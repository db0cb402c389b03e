"""A container comes to be: what it will be is put together from the request and the image, then made on its host.

allocate ─ Create, which starts it too; whatever fails, everything before it is undone and the agent's own error goes to the caller.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from google.protobuf import json_format

from migrate.coordinator import allocate, capabilities, images, inside, mounts, networks
from migrate.coordinator.agents import Agent, AgentPool
from migrate.coordinator.allocate import IDS_COUNT, Allocation
from migrate.coordinator.store import Container, Desired, Store
from migrate.errors import InvalidArgument, MigrateError, NotFound
from migrate.placement import labels as placement
from protos import agent_pb2, coordinator_pb2, types_pb2

DEFAULT_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
DEFAULT_STOP_TIMEOUT_S = 10.0
ALL_IDS = (1 << 32) - 1

log = logging.getLogger(__name__)


def run(
    store: Store, pool: AgentPool, request: coordinator_pb2.RunRequest, announce: Callable[[str], None]
) -> types_pb2.ContainerStatus:
    """Create, and start unless create_only. What it returns is the agent's; the caller adds what the fleet knows.
    `announce` gets the id before anybody can see it in the store. The host is chosen: migrate.coordinator.choose.
    """
    if not request.image:
        raise InvalidArgument("an image is needed", hint="migrate images")
    host = store.host(request.host).name
    agent = pool.agent(host)
    try:
        image = agent.call("Images", "Inspect", agent_pb2.InspectImageRequest(name=request.image))
    except NotFound as exc:
        hint = f"migrate pull {request.image} --host {host}"
        raise NotFound(f"no image {request.image!r} on {host}", hint=hint, code=images.NO_IMAGE) from exc
    # What the request alone can get wrong is found before anything is allocated.
    plan = specification(request, image)
    if plan.network.mode == "host":
        plan.hostname = plan.hostname or host  # as Docker: the host's

    def make_spec(allocation: Allocation) -> str:
        announce(allocation.id)
        return json_format.MessageToJson(_with_allocation(plan, allocation), preserving_proto_field_name=True, indent=0)

    container = allocate.create(
        store,
        owner=host,
        make_spec=make_spec,
        name=request.name,
        address=request.address,
        mac=request.mac,
        desired=Desired.STOPPED if request.create_only else Desired.RUNNING,
    )
    try:
        start = not request.create_only
        create = agent_pb2.CreateRequest(
            spec=spec_of(container), epoch=container.epoch, start=start, secrets=dict(request.secret_data)
        )
        status: types_pb2.ContainerStatus = agent.call("Containers", "Create", create)
        if start and status.state == types_pb2.CONTAINER_STATE_CREATED:  # an older agent does one at a time
            status = agent.call("Containers", "Start", agent_pb2.StartRequest(id=container.id))
    except MigrateError as exc:
        undo(store, agent, container, exc)
        raise
    return status


def undo(store: Store, agent: Agent, container: Container, error: MigrateError) -> None:
    """Remove what may be on the host, then the allocation. Where the host does not answer both stay: `error` says so."""
    try:
        agent.call("Containers", "Remove", agent_pb2.RemoveRequest(id=container.id, force=True, volumes=True))
    except NotFound:
        pass  # it never came to be
    except MigrateError as exc:
        log.warning("%s: cannot undo the creation of %s: %s", agent.name, container.name, exc.message)
        error.touched = "something"
        error.hint = f"{error.hint}; " if error.hint else ""
        error.hint += f"{agent.name} did not undo it ({exc.message}); later: migrate rm -f {container.name}"
        return
    store.remove_container(container.id)


def spec_of(container: Container) -> types_pb2.ContainerSpec:
    """What the store keeps of it."""
    return json_format.Parse(container.spec, types_pb2.ContainerSpec(), ignore_unknown_fields=True)


def specification(request: coordinator_pb2.RunRequest, image: types_pb2.Image) -> types_pb2.ContainerSpec:
    """Everything but what is allocated. Raises InvalidArgument."""
    config = image.config
    argv = command(request, config)
    if not argv:
        raise InvalidArgument(
            f"the image {request.image} says no command", hint=f"name one: migrate run {request.image} COMMAND"
        )
    inside.check(request)
    inside.check_platform(request.platform, image)
    told = {**config.labels, **request.labels}
    placement.constraints(told.get(placement.CONSTRAINTS, ""))  # read at each move to come: wrong ones are refused now
    for name in (placement.AFFINITY, placement.ANTI_AFFINITY):
        placement.terms(told.get(name, ""))
    cwd = request.cwd or config.working_dir or "/"
    if not cwd.startswith("/"):
        raise InvalidArgument(f"the working directory must be absolute, not {cwd!r}", hint="-w /path")
    return types_pb2.ContainerSpec(
        image=request.image,
        image_digest=image.digest,
        layers=image.layers,
        argv=argv,
        env=environment(config.env, request.env, request.unset_env),
        cwd=cwd,
        user=request.user or config.user,
        hostname=request.hostname,
        limits=request.limits,
        tty=request.tty,
        stdin_open=request.stdin_open,
        capabilities=capabilities.bounding_set(request.cap_add, request.cap_drop),
        stop_signal=request.stop_signal or config.stop_signal or "SIGTERM",
        stop_timeout_s=request.stop_timeout_s or DEFAULT_STOP_TIMEOUT_S,
        labels=told,
        remove_on_exit=request.remove_on_exit,
        mounts=mounts.resolved([*request.mounts, *inside.secret_mounts(request)], config.volumes),
        read_only=request.read_only,
        isolation=request.isolation,
        restart=request.restart,
        health=health(request.health, config.healthcheck),
        init=request.init,
        log_options=request.log_options,
        network=networks.network(request, config),
        groups=request.groups,
        domainname=request.domainname,
        annotations=request.annotations,
        umask=request.umask,
        timezone=request.timezone,
        secrets=request.secrets,
    )


def command(request: coordinator_pb2.RunRequest, config: types_pb2.ImageConfig) -> list[str]:
    """Docker's rules: entrypoint, then the request's argv or the image's cmd; a new entrypoint drops the image's cmd."""
    if request.entrypoint:
        return [*(word for word in request.entrypoint if word), *request.argv]
    return [*config.entrypoint, *(request.argv or config.cmd)]


def environment(image: Iterable[str], request: Iterable[str], unset: Iterable[str] = ()) -> list[str]:
    """The image's with the request's over it, but for the names in `unset`; PATH where neither says."""
    merged = {entry.partition("=")[0]: entry for entry in (DEFAULT_PATH, *image, *request)}
    for key, entry in merged.items():
        if not key or "=" not in entry:
            raise InvalidArgument(f"{entry!r} is not KEY=value")
    gone = set(unset)
    return [entry for key, entry in merged.items() if key not in gone]


def health(request: types_pb2.Healthcheck, image: types_pb2.Healthcheck) -> types_pb2.Healthcheck:
    """What is set in the request goes over the image's."""
    merged = types_pb2.Healthcheck()
    merged.CopyFrom(image)
    if request.test:
        merged.ClearField("test")
    merged.MergeFrom(request)
    return merged


def _with_allocation(plan: types_pb2.ContainerSpec, allocation: Allocation) -> types_pb2.ContainerSpec:
    spec = types_pb2.ContainerSpec()
    spec.CopyFrom(plan)
    spec.id = allocation.id
    spec.name = allocation.name
    spec.hostname = plan.hostname or allocation.id[:12]
    spec.ids.base, spec.ids.count = allocation.ids_base, IDS_COUNT
    if plan.isolation.user == "host":
        spec.ids.base, spec.ids.count = 0, ALL_IDS
    if not plan.network.mode:
        spec.network.address, spec.network.mac = allocation.address, allocation.mac
        spec.network.gateway = allocation.gateway
    networks.choose_ports(spec.network, allocation.others())
    spec.created_unix_ns = allocation.created_unix_ns
    return spec
