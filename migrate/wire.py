"""Between protobuf messages and migrate.records, for the client; nothing else."""

from __future__ import annotations

import dataclasses
import json
import time
from typing import Any

from migrate import errors, records
from migrate.rpc import errors as rpc_errors
from migrate.rpc import messages
from protos import agent_pb2, coordinator_pb2, types_pb2


def state_name(state: int) -> str:
    """ "running" of CONTAINER_STATE_RUNNING; "unknown" of what is not specified."""
    if state == types_pb2.CONTAINER_STATE_UNSPECIFIED:
        return "unknown"
    name: str = types_pb2.ContainerState.Name(state)
    return name.removeprefix("CONTAINER_STATE_").lower()


def container(status: types_pb2.ContainerStatus) -> records.Container:
    spec = status.spec
    return records.Container(
        id=spec.id,
        name=spec.name,
        host=status.host,
        state=state_name(status.state),
        image=spec.image,
        image_digest=spec.image_digest,
        layers=tuple(spec.layers),
        argv=tuple(spec.argv),
        env=tuple(spec.env),
        cwd=spec.cwd,
        user=spec.user,
        hostname=spec.hostname,
        address=spec.network.address,
        mac=spec.network.mac,
        gateway=spec.network.gateway,
        ids_base=spec.ids.base,
        ids_count=spec.ids.count,
        **limit_fields(spec.limits),
        tty=spec.tty,
        stdin_open=spec.stdin_open,
        capabilities=tuple(spec.capabilities),
        stop_signal=spec.stop_signal,
        stop_timeout_s=spec.stop_timeout_s,
        labels=dict(spec.labels),
        created_unix_ns=spec.created_unix_ns,
        remove_on_exit=spec.remove_on_exit,
        **place_fields(spec),
        pid=status.pid,
        started_unix_ns=status.started_unix_ns,
        finished_unix_ns=status.finished_unix_ns,
        exit_code=status.exit_code if status.HasField("exit_code") else None,
        error=status.error,
        epoch=status.epoch,
        migration_id=status.migration_id,
        oom_kills=status.oom_kills,
        oom_killed=status.oom_kills > 0,
        restarts=status.restarts,
        layer_bytes=status.layer_bytes,
        health_now=messages.record(records.Health, status.health),
    )


LIMITS = tuple(one.name for one in dataclasses.fields(records.Limits))


def limit_fields(message: types_pb2.Limits) -> dict[str, Any]:
    """The fields of records.Limits."""
    values: dict[str, Any] = {name: getattr(message, name) for name in LIMITS}
    rates = (records.DeviceRate(path=one.path, what=one.what, rate=one.rate) for one in message.device_rates)
    ulimits = (records.Ulimit(name=one.name, soft=one.soft, hard=one.hard) for one in message.ulimits)
    swappiness = message.memory_swappiness if message.HasField("memory_swappiness") else None
    return values | {"device_rates": tuple(rates), "ulimits": tuple(ulimits), "memory_swappiness": swappiness}


def limits(wanted: records.Limits) -> types_pb2.Limits:
    values = {name: getattr(wanted, name) for name in LIMITS}
    values["device_rates"] = [types_pb2.DeviceRate(**one.to_dict()) for one in wanted.device_rates]
    values["ulimits"] = [types_pb2.Ulimit(**one.to_dict()) for one in wanted.ulimits]
    return types_pb2.Limits(**values)


def place_fields(spec: types_pb2.ContainerSpec) -> dict[str, Any]:
    """The fields of records.Place."""
    network = spec.network
    return {
        "mounts": tuple(messages.record(records.Mount, one) for one in spec.mounts),
        "read_only": spec.read_only,
        "isolation": messages.record(records.Isolation, spec.isolation),
        "restart": messages.record(records.RestartPolicy, spec.restart),
        "health": messages.record(records.Healthcheck, spec.health),
        "init": spec.init,
        "log_options": dict(spec.log_options),
        "network_mode": network.mode,
        "ports": tuple(messages.record(records.Port, one) for one in network.ports),
        "extra_hosts": tuple(network.extra_hosts),
        "dns": tuple(network.dns),
        "dns_search": tuple(network.dns_search),
        "dns_options": tuple(network.dns_options),
        "exposed": tuple(network.exposed),
        "groups": tuple(spec.groups),
        "domainname": spec.domainname,
        "annotations": dict(spec.annotations),
        "umask": spec.umask,
        "timezone": spec.timezone,
        "secrets": tuple(messages.record(records.Secret, one) for one in spec.secrets),
    }


def network(wanted: records.Place) -> types_pb2.Network:
    return types_pb2.Network(
        mode=wanted.network_mode,
        ports=[types_pb2.Port(**one.to_dict()) for one in wanted.ports],
        extra_hosts=wanted.extra_hosts,
        dns=wanted.dns,
        dns_search=wanted.dns_search,
        dns_options=wanted.dns_options,
        exposed=wanted.exposed,
    )


def usage(message: types_pb2.ContainerUsage) -> records.Usage:
    return records.Usage(**{one.name: getattr(message, one.name) for one in dataclasses.fields(records.Usage)})


def happening(event: types_pb2.Event) -> records.Happening:
    return messages.record(records.Happening, event)


def process(message: types_pb2.ContainerProcess) -> records.Process:
    return records.Process(**{one.name: getattr(message, one.name) for one in dataclasses.fields(records.Process)})


def host(status: coordinator_pb2.HostStatus) -> records.Host:
    facts = status.facts
    return records.Host(
        name=status.name,
        address=status.address,
        port=status.port,
        reachable=status.reachable,
        error=status.error,
        containers=status.containers,
        labels=dict(status.labels),
        cordoned=status.cordoned,
        cordon_reason=status.cordon_reason,
        cordoned_unix_ns=status.cordoned_unix_ns,
        pulse=records.Pulse(
            health=status.pulse.health or "unknown",
            since_unix_ns=status.pulse.since_unix_ns,
            seen_unix_ns=status.pulse.seen_unix_ns,
            error=status.pulse.error,
        ),
        joined=status.joined,
        login=status.login,
        host_keys=tuple(status.host_keys),
        facts=None
        if not status.HasField("facts")
        else records.Facts(
            agent_version=facts.agent_version,
            protocol=facts.protocol,
            kernel=facts.kernel,
            architecture=facts.architecture,
            criu_version=facts.criu_version,
            memory_total_bytes=facts.memory_total_bytes,
            memory_available_bytes=facts.memory_available_bytes,
            disk_available_bytes=facts.disk_available_bytes,
            containers_running=facts.containers_running,
            bridge=facts.bridge,
            cpus=facts.cpus,
            instructions=tuple(facts.instructions),
            capabilities=tuple(
                records.Capability(name=c.name, ok=c.ok, value=c.value, remedy=c.remedy, required=c.required)
                for c in facts.capabilities
            ),
        ),
    )


def image(message: types_pb2.Image) -> records.Image:
    config, check = message.config, message.config.healthcheck
    return records.Image(
        name=message.name,
        host=message.host,
        digest=message.digest,
        layers=tuple(message.layers),
        size_bytes=message.size_bytes,
        created_unix_ns=message.created_unix_ns,
        defaults=records.ImageDefaults(
            cmd=tuple(config.cmd),
            entrypoint=tuple(config.entrypoint),
            env=tuple(config.env),
            working_dir=config.working_dir,
            user=config.user,
            labels=dict(config.labels),
            stop_signal=config.stop_signal,
            exposed_ports=tuple(config.exposed_ports),
            volumes=tuple(config.volumes),
            healthcheck=records.Healthcheck(
                test=tuple(check.test),
                interval_ns=check.interval_ns,
                timeout_ns=check.timeout_ns,
                start_period_ns=check.start_period_ns,
                retries=check.retries,
                start_interval_ns=check.start_interval_ns,
            )
            if config.HasField("healthcheck")
            else None,
            shell=tuple(config.shell),
            on_build=tuple(config.on_build),
        ),
        document=message.document,
        repo_digests=tuple(message.repo_digests),
        layer_bytes=tuple(message.layer_bytes),
        stored_bytes=message.stored_bytes,
        used_by=tuple(message.used_by),
    )


def image_event(event: agent_pb2.ImageEvent) -> records.ImageEvent:
    kind = event.WhichOneof("kind")
    if kind == "image":
        return image(event.image)
    if kind == "digest":
        return records.Pushed(host=event.host, digest=event.digest)
    return records.ImageProgress(
        host=event.host,
        layer=event.progress.phase,
        text=event.progress.text,
        done_bytes=event.progress.done_bytes,
        total_bytes=event.progress.total_bytes,
        unix_ns=event.progress.unix_ns,
    )


def registry_access(access: records.RegistryAccess | None) -> agent_pb2.RegistryAccess:
    if access is None:
        return agent_pb2.RegistryAccess()
    return agent_pb2.RegistryAccess(
        credentials=access.credentials, unverified=access.unverified, certificates=access.certificates
    )


def image_config(defaults: records.ImageDefaults) -> types_pb2.ImageConfig:
    return types_pb2.ImageConfig(
        cmd=defaults.cmd,
        entrypoint=defaults.entrypoint,
        env=defaults.env,
        working_dir=defaults.working_dir,
        user=defaults.user,
        labels=dict(defaults.labels),
        stop_signal=defaults.stop_signal,
        exposed_ports=defaults.exposed_ports,
        volumes=defaults.volumes,
        healthcheck=types_pb2.Healthcheck(**defaults.healthcheck.to_dict()) if defaults.healthcheck else None,
        shell=defaults.shell,
        on_build=defaults.on_build,
    )


def run_request(wanted: records.Run, *, create_only: bool) -> coordinator_pb2.RunRequest:
    return coordinator_pb2.RunRequest(
        name=wanted.name,
        host=wanted.host,
        image=wanted.image,
        argv=wanted.argv,
        # On the wire an empty list means "the image's", and [""] means "none".
        entrypoint=() if wanted.entrypoint is None else wanted.entrypoint or ("",),
        env=wanted.env,
        cwd=wanted.cwd,
        user=wanted.user,
        hostname=wanted.hostname,
        limits=limits(wanted),
        tty=wanted.tty,
        stdin_open=wanted.stdin_open,
        labels=dict(wanted.labels),
        address=wanted.address,
        mac=wanted.mac,
        create_only=create_only,
        cap_add=wanted.cap_add,
        cap_drop=wanted.cap_drop,
        stop_signal=wanted.stop_signal,
        stop_timeout_s=wanted.stop_timeout_s,
        remove_on_exit=wanted.remove_on_exit,
        mounts=[types_pb2.Mount(**one.to_dict()) for one in wanted.mounts],
        read_only=wanted.read_only,
        isolation=types_pb2.Isolation(**wanted.isolation.to_dict()),
        restart=types_pb2.RestartPolicy(**wanted.restart.to_dict()),
        health=types_pb2.Healthcheck(**wanted.health.to_dict()),
        init=wanted.init,
        log_options=dict(wanted.log_options),
        network=network(wanted),
        publish_all=wanted.publish_all,
        groups=wanted.groups,
        domainname=wanted.domainname,
        annotations=dict(wanted.annotations),
        umask=wanted.umask,
        timezone=wanted.timezone,
        secrets=[types_pb2.Secret(**one.to_dict()) for one in wanted.secrets],
        secret_data=dict(wanted.secret_data),
        unset_env=wanted.unset_env,
        platform=wanted.platform,
    )


def log_line(chunk: agent_pb2.LogChunk) -> records.LogLine:
    return records.LogLine(unix_ns=chunk.unix_ns, stream=chunk.stream, data=chunk.data)


def progress(migration_id: str, message: types_pb2.Progress) -> records.Progress:
    return records.Progress(
        migration_id=migration_id,
        phase=message.phase,
        text=message.text,
        done_bytes=message.done_bytes,
        total_bytes=message.total_bytes,
        facts=dict(message.facts),
        unix_ns=message.unix_ns or time.time_ns(),
    )


def step(migration_id: str, message: coordinator_pb2.StepEvent) -> records.Step:
    facts: Any = json.loads(message.facts_json) if message.facts_json else {}
    return records.Step(
        migration_id=migration_id,
        step=message.step,
        event=message.event,
        unix_ns=message.unix_ns,
        facts=facts if isinstance(facts, dict) else {"value": facts},
        error=message.error,
    )


def migration(message: coordinator_pb2.MigrationRecord) -> records.Migration:
    error = message.error
    return records.Migration(
        id=message.migration_id,
        container_id=message.container_id,
        container=message.container,
        source=message.source,
        target=message.target,
        state=message.state,
        step=message.step,
        reason=message.reason,
        mode=message.mode,
        started_unix_ns=message.started_unix_ns,
        finished_unix_ns=message.finished_unix_ns,
        epoch=message.epoch,
        failure=None
        if not message.HasField("error")
        else records.Failure(
            code=error.code, message=error.message, hint=error.hint, touched=error.touched, detail=error.detail
        ),
        journal=tuple(step(message.migration_id, one) for one in message.journal),
        facts=dict(message.facts),
        sent_bytes=dict(message.sent_bytes),
        marks=tuple(records.Mark(name=mark.name, unix_ns=mark.unix_ns, host=mark.host) for mark in message.marks),
        compress=message.transfer.compress,
        bandwidth=message.transfer.bandwidth,
        connections=message.transfer.connections or 1,
        travelled=messages.record(records.Travelled, message.travelled),
        max_downtime_s=message.max_downtime_s,
        precopy=messages.record(records.PrecopyOptions, message.precopy),
        rehearsal=message.rehearsal,
        policies=dict(message.policies),
        priority=message.priority,
    )


def failure(message: coordinator_pb2.MigrationRecord) -> errors.MigrateError | None:
    """The error that a move which did not succeed raises; None for one that did or still goes on.

    Its class says how the move ended (PrecheckError, StepError, Cancelled, NeedsAttention), its code what went wrong.
    """
    if message.state in ("succeeded", "rehearsed", "running", "checked"):
        return None
    found = rpc_errors.from_detail(message.error) if message.HasField("error") else None
    if message.state == "failed" and found is not None and found.touched == "nothing":
        return found  # a check said no
    kind = {"cancelled": errors.Cancelled, "needs-attention": errors.NeedsAttention}.get(
        message.state, errors.StepError
    )
    if found is None:
        hint = f"migrate migrations show {message.migration_id}"
        return kind(f"the move {message.migration_id} of {message.container} is {message.state}", hint=hint)
    return kind(found.message, hint=found.hint, detail=found.detail, code=found.code, touched=found.touched)


def build_start(wanted: records.Build) -> agent_pb2.BuildStart:
    return agent_pb2.BuildStart(
        dockerfile=wanted.dockerfile,
        file=wanted.file,
        tags=wanted.tags,
        host=wanted.host,
        build_args=wanted.build_args,
        target=wanted.target,
        no_cache=wanted.no_cache,
        pull=wanted.pull,
        network=wanted.network,
        secrets=wanted.secrets,
        labels=wanted.labels,
        access=registry_access(wanted.access),
    )


def build_event(
    event: agent_pb2.BuildEvent,
) -> records.BuildStep | records.BuildStepDone | records.BuildWarning | records.Output:
    """Of every kind but the last, `done`."""
    kind = event.WhichOneof("kind")
    if kind == "step":
        step = event.step
        return records.BuildStep(number=step.number, total=step.total, text=step.text, stage=step.stage)
    if kind == "step_done":
        done = event.step_done
        return records.BuildStepDone(
            number=done.number, cached=done.cached, layer=done.layer, duration_s=done.duration_s
        )
    if kind == "warning":
        return records.BuildWarning(text=event.warning)
    return records.Output(stream=kind or "stdout", data=event.stderr if kind == "stderr" else event.stdout)
