"""Hosts, images, moves and what happens in a fleet, as the client library takes and gives them. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from typing import Any

from migrate.records_container import Healthcheck
from migrate.records_json import Json, Record


class Usage(Json):
    """What a container uses now, and counters since it came to its host."""

    id: str
    name: str
    host: str
    unix_ns: int
    cpu_ns: int
    memory_bytes: int
    memory_limit_bytes: int  # its own, or else the host's memory
    tasks: int
    network_received_bytes: int
    network_sent_bytes: int
    block_read_bytes: int
    block_written_bytes: int


class Process(Json):
    """One task of a container. `pid`, `parent` and `user` are the container's own; a parent outside is 0."""

    host_pid: int
    pid: int
    parent: int
    user: int
    threads: int
    resident_bytes: int
    cpu_s: float
    state: str
    started_unix_ns: int
    command: str


class Happening(Json):
    """An event: `type` "container", "image", "migration" or "host"; `action` "start", "die", "health_status: healthy", ...

    `id`: of the container or the move; of an image its name.
    """

    type: str
    action: str
    id: str
    name: str
    host: str
    unix_ns: int
    attributes: Mapping[str, str] = field(default_factory=dict)


class Capability(Json):
    """One thing that a host can or cannot do."""

    name: str
    ok: bool
    value: str
    remedy: str
    required: bool


class Facts(Json):
    """What a host says about itself."""

    agent_version: str
    protocol: int
    kernel: str
    architecture: str
    criu_version: str
    memory_total_bytes: int
    memory_available_bytes: int
    disk_available_bytes: int
    containers_running: int
    bridge: str
    capabilities: tuple[Capability, ...]
    cpus: int = 0  # 0 = it does not say
    instructions: tuple[str, ...] = ()  # of the processors, beyond their base


class Pulse(Json):
    """What a host's heartbeats tell. `health`: "up", "suspect", "down", or "unknown" for one that has never answered; `since_unix_ns`:
    when that began; `seen_unix_ns`: of a silent one, its last answer, 0 = none; `error`: of the last beat.
    """

    health: str = "unknown"
    since_unix_ns: int = 0
    seen_unix_ns: int = 0
    error: str = ""


class Host(Json):
    """`facts` is None where they were not asked for or the host cannot be reached. `reachable`: it has answered just now; `pulse`: how
    it has been. `joined`: by `host add`, by the way `login`; else the coordinator's configuration has it.
    """

    name: str
    address: str
    port: int
    reachable: bool
    error: str
    containers: int
    facts: Facts | None
    labels: Mapping[str, str] = field(default_factory=dict)
    cordoned: bool = False  # it takes no new containers and no moves
    cordon_reason: str = ""
    cordoned_unix_ns: int = 0
    pulse: Pulse = field(default_factory=Pulse)
    joined: bool = False
    login: str = ""
    host_keys: tuple[str, ...] = ()  # of its sshd, pinned


class TunnelTest(Json):
    """Memory can go from `source` to `target`, this fast."""

    source: str
    target: str
    bytes_per_s: float


class Joined(Json):
    """`tunnels`: to and from another host; none where this is the only one that answers."""

    host: Host
    was_there: bool
    tunnels: tuple[TunnelTest, ...]


class Left(Json):
    """`forgotten`: names of containers. `still_trusts`: why the host could not be told, "" if it was."""

    forgotten: tuple[str, ...]
    still_trusts: str


class RankedHost(Json):
    """`refusals` empty: it can take the container, with `score` (0 to 1) made of `parts`."""

    host: str
    score: float
    parts: Mapping[str, float]
    refusals: tuple[str, ...]


class Ranking(Json):
    """Hosts for one container: those that can take it, best first, then those that cannot."""

    container: str
    hosts: tuple[RankedHost, ...]

    @property
    def best(self) -> str:
        """ "" where none can take it."""
        return next((one.host for one in self.hosts if not one.refusals), "")


class Failure(Json):
    """Why a move did not succeed; the fields are those of MigrateError."""

    code: str
    message: str
    hint: str
    touched: str
    detail: str


class EvacuationItem(Json):
    """One container of an evacuation. `state`: "planned", "moving", "stopping", "starting", "moved", "stopped", "started", "skipped",
    "waiting" (past its move's pivot), "failed", "refused" (by the plan), "late", "cancelled". Predictions of 0: nothing is known.
    """

    container_id: str
    container: str
    action: str
    state: str
    source: str
    target: str
    migration_id: str
    tries: int
    why: str
    error: Failure | None
    predicted_s: float
    predicted_downtime_s: float
    took_s: float
    downtime_s: float
    memory_bytes: int


class Evacuation(Json):
    """`kind`: "evacuate" or "restore", of `host`. `state`: "planned" (a dry run's), "running", "succeeded", "incomplete", "cancelled"."""

    id: str
    kind: str
    host: str
    state: str
    reason: str
    started_unix_ns: int
    finished_unix_ns: int
    items: tuple[EvacuationItem, ...]
    max_parallel: int
    bandwidth: int
    deadline_s: float
    predicted_s: float
    to: tuple[str, ...]
    action: str
    selector: Mapping[str, str]


class EvacuationNote(Json):
    """A line for people."""

    text: str


class ImageDefaults(Json):
    """What `run` takes from an image."""

    cmd: tuple[str, ...] = ()
    entrypoint: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    working_dir: str = ""
    user: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    stop_signal: str = ""
    exposed_ports: tuple[str, ...] = ()  # "5000/tcp"
    volumes: tuple[str, ...] = ()  # absolute paths
    healthcheck: Healthcheck | None = None
    shell: tuple[str, ...] = ()
    on_build: tuple[str, ...] = ()


class Image(Json):
    """An image on one host. `size_bytes`: unpacked; `stored_bytes`: of the archives of its layers.

    `name`: with its tag; "NAME@DIGEST" where another image took that, "@DIGEST" where it never had one. `document`: the
    OCI config, byte for byte, empty in lists. `repo_digests`: "REPOSITORY@DIGEST" in registries.
    """

    name: str
    host: str
    digest: str
    layers: tuple[str, ...]
    size_bytes: int
    created_unix_ns: int
    defaults: ImageDefaults
    document: str = ""
    repo_digests: tuple[str, ...] = ()
    layer_bytes: tuple[int, ...] = ()  # unpacked, beside `layers`
    stored_bytes: int = 0
    used_by: tuple[str, ...] = ()  # names of containers on `host`

    @property
    def repository(self) -> str:
        """The name without tag, "" where it never had one."""
        return split_name(self.name)[0]

    @property
    def tag(self) -> str:
        """ "" of an image without one."""
        return split_name(self.name)[1]


def split_name(name: str) -> tuple[str, str]:
    """Repository and tag: the port of a registry is no tag, and what another image took is none any more."""
    base, at, _ = name.partition("@")
    repository, colon, tag = base.rpartition(":")
    if not colon or "/" in tag:
        return base, ""
    return repository, "" if at else tag


class RegistryAccess(Record):
    """How to reach a registry. `credentials`: as containers-auth.json(5), or empty. `certificates`: PEM, to trust besides
    the host's. `unverified`: http, or https whose certificate nobody checks.
    """

    credentials: bytes = field(default=b"", repr=False)
    unverified: bool = False
    certificates: bytes = b""


class ImageProgress(Json):
    """News of one layer of a pull, push or load on one host. `layer`: a digest, or a word for what is no layer."""

    host: str
    layer: str
    text: str
    done_bytes: int
    total_bytes: int  # 0 = unknown
    unix_ns: int


class Pushed(Json):
    """`digest`: of the manifest in the registry."""

    host: str
    digest: str


ImageEvent = ImageProgress | Image | Pushed


class RemovedImages(Json):
    """Names, digests of images that went with their last name, and the layers that nothing else uses."""

    untagged: tuple[str, ...]
    deleted: tuple[str, ...]
    layers: tuple[str, ...]
    freed_bytes: int = 0
    host: str = ""


class LogLine(Record):
    """One line, or a part of one, that a container wrote; `data` as written."""

    unix_ns: int
    stream: str
    data: bytes


class Output(Record):
    """A piece of what a process wrote to "stdout" or "stderr"."""

    stream: str
    data: bytes


class Progress(Json):
    """A line of news from within a step."""

    migration_id: str
    phase: str
    text: str
    done_bytes: int
    total_bytes: int  # 0 = unknown
    facts: Mapping[str, float]
    unix_ns: int


class Step(Json):
    """A line of a move's journal: `event` happened to `step`."""

    migration_id: str
    step: str
    event: str
    unix_ns: int
    facts: Mapping[str, Any]
    error: str


class Mark(Json):
    """One instant of the frozen window, by the clock of `host`."""

    name: str
    unix_ns: int
    host: str


class Travelled(Json):
    """Bytes of a move beside `sent_bytes`, which is what went over the wire by kind. `raw_bytes`: by the same kinds, before packing;
    `codec_bytes`: on the wire, by codec; `skipped_bytes`: of memory that was not sent, by reason.
    """

    raw_bytes: Mapping[str, int] = field(default_factory=dict)
    codec_bytes: Mapping[str, int] = field(default_factory=dict)
    skipped_bytes: Mapping[str, int] = field(default_factory=dict)


class PrecopyOptions(Json):
    """How memory is sent ahead: docs/precopy.md. `binding`: the move ends by `on_timeout` ("abort", "pause" or "post-copy") where
    max_downtime_s is not to be met. `hold`: ready, it goes on sending until somebody commits it. `fixed_s`: of a freeze without memory,
    as earlier moves have shown it; 0 = none has.
    """

    max_rounds: int = 0
    timeout_s: float = 0.0
    on_timeout: str = "abort"
    throttle: bool = False
    hold: bool = False
    end_exec: bool = False
    binding: bool = False
    fixed_s: float = 0.0


class Migration(Json):
    """One move, from its beginning to now or to its end. `journal` and `marks` are empty in lists."""

    id: str
    container_id: str
    container: str
    source: str
    target: str
    state: str
    step: str
    reason: str
    mode: str
    started_unix_ns: int
    finished_unix_ns: int
    epoch: int
    failure: Failure | None
    journal: tuple[Step, ...]
    facts: Mapping[str, float]  # "downtime_s", "frozen_s", "total_s"
    sent_bytes: Mapping[str, int]
    marks: tuple[Mark, ...]
    compress: str = "auto"
    bandwidth: int = 0  # bytes per second, 0 = no limit
    connections: int = 1  # of ssh, beside each other
    travelled: Travelled = field(default_factory=Travelled)
    max_downtime_s: float = 0.0
    precopy: PrecopyOptions = field(default_factory=PrecopyOptions)
    rehearsal: bool = False  # docs/rehearse.md: its facts are others
    policies: Mapping[str, str] = field(default_factory=dict)  # "mode", "bandwidth", ... -> the policy that said it
    priority: str = "normal"


class MoveLog(Json):
    """The end of one log of a move, on one host: "dump.log", "receiver.log", ..."""

    name: str
    host: str
    text: str


Event = Progress | Step


class Build(Record):
    """What `build` takes. `dockerfile`: its text, `file` its name for messages. `tags`: names for the image. `host` "":
    the fleet's first. `network`: "" (the bridge), "host", "none". `secrets`: id -> contents.
    """

    dockerfile: str
    file: str = "Dockerfile"
    tags: tuple[str, ...] = ()
    host: str = ""
    build_args: Mapping[str, str] = field(default_factory=dict)
    target: str = ""
    no_cache: bool = False
    pull: bool = False
    network: str = ""
    secrets: Mapping[str, bytes] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    access: RegistryAccess | None = None  # to the registries of base images


class BuildStep(Json):
    """A step begins: `number` of `total`. `stage`: "" where the build has only one."""

    number: int
    total: int
    text: str
    stage: str


class BuildStepDone(Json):
    """`cached`: nothing had to be done. `layer`: diff id of what it added, "" where no file changed."""

    number: int
    cached: bool
    layer: str
    duration_s: float


class BuildWarning(Json):
    """What is no error."""

    text: str


class Version(Json):
    """Of the coordinator."""

    version: str
    protocol: int
    fleet: str
