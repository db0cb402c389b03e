"""Each limit by its effect, from inside the container and from outside, on whichever version of cgroups this machine has."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from agent.engine import adjust, control, devices, limits, session, usage
from agent.engine import disk as disk_file
from agent.engine.container import Engine
from agent.engine.spec import ContainerSpec, DeviceRate, Limits, Ulimit
from agent.engine.state import ContainerStatus, State
from agent.errors import InvalidArgument, Unsupported, WrongState
from tests.system.engine_host import EngineHost, until

pytestmark = pytest.mark.system

HUNGRY = "x=$(head -c 50000000 /dev/zero | tr '\\0' x); echo ${#x}"
BUSY = "while :; do :; done"
MIB = 1 << 20


def started(engine: Engine, spec: ContainerSpec) -> ContainerStatus:
    engine.create(spec, 1)
    return engine.start(spec.id)


def output(engine: Engine, spec: ContainerSpec) -> str:
    return b"".join(entry.data for entry in engine.logs(spec.id)).decode()


def said(engine: Engine, spec: ContainerSpec) -> str:
    """What it wrote, once it has ended."""
    started(engine, spec)
    engine.wait(spec.id, 60)
    return output(engine, spec)


def control_file(engine: Engine, spec: ContainerSpec, controller: str, v1: str, v2: str) -> str:
    """What the file of the version that has the controller says."""
    _, path = engine.cgroup(spec.id).directories.files(controller, v1=(v1,), v2=(v2,))
    return path.read_text().strip()


def inside(engine: Engine, spec: ContainerSpec, command: str) -> str:
    """What a command that is run by `exec` writes."""
    record = engine.store.record(spec.id)
    request = session.request(
        spec,
        pid=engine.running_pid(spec.id),
        start_ticks=record.start_ticks,
        cgroups=engine.cgroup(spec.id).dirs,
        argv=("/bin/sh", "-c", command),
    )
    with session.Session(request, stdin=False) as running:
        return b"".join(piece.data for piece in running).decode()


def cpu_share(engine: Engine, spec: ContainerSpec, span_s: float) -> float:
    """Seconds of processor a second, all its processes together."""
    began = usage.read(engine.cgroup(spec.id), 0)
    time.sleep(span_s)
    ended = usage.read(engine.cgroup(spec.id), 0)
    return (ended.cpu_ns - began.cpu_ns) / (ended.unix_ns - began.unix_ns)


def disk(host: EngineHost) -> str:
    """The path whose disk is limited."""
    assert devices.find(host.directory) is not None, f"{host.directory} lies on no disk: put /var/tmp on one"
    return str(host.directory)


def test_over_the_limit_of_memory_is_killed_and_said(host: EngineHost, engine: Engine) -> None:
    """More than --memory: the kernel kills, and inspect says so, while it runs and after its end; less: nothing."""
    spec = host.spec(f"({HUNGRY}); echo next; sleep 60", limits=Limits(memory_bytes=16 * MIB))
    started(engine, spec)
    until(lambda: "next" in output(engine, spec))
    assert "50000000" not in output(engine, spec)
    assert (engine.inspect(spec.id).state, engine.inspect(spec.id).oom_kills) == (State.RUNNING, 1)
    assert engine.stop(spec.id, 0).oom_kills == 1
    assert engine.inspect(spec.id).oom_kills == 1
    spec = host.spec(HUNGRY, limits=Limits(memory_bytes=512 * MIB))
    assert said(engine, spec) == "50000000\n"
    assert engine.inspect(spec.id).oom_kills == 0


@pytest.mark.parametrize(("swap", "v1", "v2"), [(0, 64, 0), (96 * MIB, 96, 32), (-1, None, None)])
def test_swap_is_what_is_left_of_the_sum(
    host: EngineHost, engine: Engine, swap: int, v1: int | None, v2: int | None
) -> None:
    """Without a word none; else memory and swap together, as both versions write it; -1 as much as there is."""
    spec = host.spec("sleep 60", limits=Limits(memory_bytes=64 * MIB, memory_swap_bytes=swap))
    started(engine, spec)
    files = engine.cgroup(spec.id).directories
    is_v1, path = files.files("memory", v1=("memory.memsw.limit_in_bytes",), v2=("memory.swap.max",))
    text = path.read_text().strip()
    if v1 is None or v2 is None:
        assert text == "max" or int(text) > 1 << 60
    else:
        assert int(text) == (v1 if is_v1 else v2) * MIB


def test_reserved_memory_is_known_to_the_kernel(host: EngineHost, engine: Engine) -> None:
    """The soft limit of version 1, the protection of version 2, which the level above has too."""
    spec = host.spec("sleep 60", limits=Limits(memory_reservation_bytes=32 * MIB))
    started(engine, spec)
    assert control_file(engine, spec, "memory", "memory.soft_limit_in_bytes", "memory.low") == str(32 * MIB)
    parent = engine.cgroup(spec.id).freezer.parent / "memory.low"
    if parent.exists():
        assert parent.read_text().strip() == str(32 * MIB)
        engine.remove(spec.id, force=True)
        assert parent.read_text().strip() == "0"


def test_two_loops_get_half_a_processor(host: EngineHost, engine: Engine) -> None:
    """--cpus 0.5 bounds all processes together; --cpu-quota with --cpu-period says the same."""
    for wanted in (Limits(cpus=0.5), Limits(cpu_quota_us=25_000, cpu_period_us=50_000)):
        spec = host.spec(f"({BUSY}) & {BUSY}", limits=wanted)
        started(engine, spec)
        time.sleep(0.3)
        assert 0.03 < cpu_share(engine, spec, 1.5) <= 0.6  # of a busy machine it gets less than it may
        engine.remove(spec.id, force=True)


def test_shares_divide_a_processor_that_both_want(host: EngineHost, engine: Engine) -> None:
    """On one processor 1024 shares get clearly more than 256."""
    one = min(os.sched_getaffinity(0))
    specs = [host.spec(BUSY, limits=Limits(cpu_shares=n, cpuset_cpus=str(one))) for n in (1024, 256)]
    for spec in specs:
        started(engine, spec)
    before = [usage.read(engine.cgroup(spec.id), 0).cpu_ns for spec in specs]
    time.sleep(2)
    much, little = (
        usage.read(engine.cgroup(spec.id), 0).cpu_ns - then for spec, then in zip(specs, before, strict=True)
    )
    assert much > 2 * little
    weights = [control_file(engine, spec, "cpu", "cpu.shares", "cpu.weight") for spec in specs]
    assert weights in (["1024", "256"], ["100", str(limits.cpu_weight(256))])


def test_it_runs_where_it_may(host: EngineHost, engine: Engine) -> None:
    """--cpuset-cpus is seen inside, by the first process and by exec, and is its affinity outside."""
    last = max(os.sched_getaffinity(0))
    spec = host.spec("grep Cpus_allowed_list /proc/self/status; sleep 60", limits=Limits(cpuset_cpus=str(last)))
    pid = started(engine, spec).pid
    until(lambda: "Cpus_allowed_list" in output(engine, spec))
    assert output(engine, spec).split() == ["Cpus_allowed_list:", str(last)]
    assert inside(engine, spec, "grep Cpus_allowed_list /proc/self/status").split()[1] == str(last)
    assert os.sched_getaffinity(pid) == {last}


def test_more_processes_than_allowed_do_not_come_to_be(host: EngineHost, engine: Engine) -> None:
    """--pids-limit: fork fails inside, and outside nobody counts more."""
    spec = host.spec("for i in $(seq 1 30); do sleep 30 & done; echo made", limits=Limits(pids=10))
    started(engine, spec)
    until(lambda: "can't fork" in output(engine, spec))
    assert len(engine.cgroup(spec.id).procs()) <= 10


@pytest.mark.parametrize(
    ("what", "rate", "command"),
    [
        ("write_bps", 2 * MIB, "dd if=/dev/zero of=/big bs=1M count=5 oflag=direct"),
        ("read_bps", 2 * MIB, "dd if=/big of=/dev/null bs=1M count=5 iflag=direct"),
        ("write_iops", 20, "dd if=/dev/zero of=/big bs=4k count=50 oflag=direct"),
        ("read_iops", 20, "dd if=/big of=/dev/null bs=4k count=50 iflag=direct"),
    ],
)
def test_a_disk_is_read_and_written_no_faster(
    host: EngineHost, engine: Engine, what: str, rate: int, command: str
) -> None:
    """2.5 seconds' worth takes at least 2 with the limit on the disk below the writable layer, and less than 1 without."""
    prepare = "dd if=/dev/zero of=/big bs=1M count=5 oflag=direct 2>&1"
    script = f"{prepare}; echo ready; read go; {command} 2>&1; echo done; sleep 60"
    spec = host.spec(script, stdin_open=True)
    started(engine, spec)
    until(lambda: "ready" in output(engine, spec))
    path = disk(host)

    def seconds() -> float:
        began = time.monotonic()
        text = inside(engine, spec, f"{command} 2>&1")
        assert "records out" in text
        return time.monotonic() - began

    free = seconds()
    adjust.update(engine, spec.id, Limits(device_rates=(DeviceRate(path=path, what=what, rate=rate),)))
    limited = seconds()
    assert limited > 2.0, (free, limited)
    assert limited > free + 1.0, (free, limited)
    adjust.update(engine, spec.id, Limits())
    assert seconds() < limited - 1.0
    assert usage.read(engine.cgroup(spec.id), 0).block_written_bytes > 4 * MIB


def test_the_weight_of_its_input_and_output_is_set(host: EngineHost, engine: Engine) -> None:
    """--blkio-weight is known to the kernel; whether a disk heeds it depends on its scheduler."""
    spec = host.spec("sleep 60", limits=Limits(blkio_weight=300))
    try:
        started(engine, spec)
    except Unsupported as exc:  # a kernel without weights of any kind: then it is refused, by name
        assert "io controller" in exc.message
        return
    files = engine.cgroup(spec.id).directories
    _, path = files.files("io", v1=("blkio.bfq.weight", "blkio.weight"), v2=("io.bfq.weight", "io.weight"))
    assert path.read_text().split()[-1] == ("2930" if path.name == "io.weight" else "300")


def test_ulimits_are_those_of_every_process(host: EngineHost, engine: Engine) -> None:
    """--ulimit: the first process and one of exec have them, and the kernel keeps them."""
    asked = (
        Ulimit(name="nofile", soft=20, hard=40),
        Ulimit(name="core", soft=0, hard=0),
        Ulimit(name="fsize", soft=4096, hard=8192),
    )
    show = "ulimit -n; ulimit -Hn; ulimit -c"
    spec = host.spec(
        f"{show}; dd if=/dev/zero of=/big bs=4096 count=3 2>/dev/null; wc -c < /big; sleep 60",
        limits=Limits(ulimits=asked),
    )
    pid = started(engine, spec).pid
    until(lambda: len(output(engine, spec).split()) == 4)
    assert output(engine, spec).split() == ["20", "40", "0", "4096"]
    assert inside(engine, spec, show).split() == ["20", "40", "0"]
    lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
    assert next(line for line in lines if line.startswith("Max open files")).split()[3:5] == ["20", "40"]


def test_shared_memory_has_the_size_that_was_asked_for(host: EngineHost, engine: Engine) -> None:
    """--shm-size: /dev/shm holds that much and no more."""
    spec = host.spec(
        "dd if=/dev/zero of=/dev/shm/x bs=1M count=5 2>&1; wc -c < /dev/shm/x", limits=Limits(shm_bytes=2 * MIB)
    )
    text = said(engine, spec)
    assert "No space left" in text
    assert text.split()[-1] == str(2 * MIB)


def test_the_score_of_who_is_killed_first(host: EngineHost, engine: Engine) -> None:
    """--oom-score-adj is the first process's and that of exec."""
    spec = host.spec("sleep 60", limits=Limits(oom_score_adj=321))
    pid = started(engine, spec).pid
    assert inside(engine, spec, "cat /proc/1/oom_score_adj /proc/self/oom_score_adj").split() == ["321", "321"]
    assert Path(f"/proc/{pid}/oom_score_adj").read_text().strip() == "321"


@pytest.mark.parametrize(
    ("wanted", "error", "text"),
    [
        (Limits(memory_bytes=1 * MIB), InvalidArgument, "too few"),
        (Limits(memory_bytes=64 * MIB, memory_swap_bytes=32 * MIB), InvalidArgument, "cannot be less"),
        (Limits(cpus=1, cpu_quota_us=5000), InvalidArgument, "same thing"),
        (Limits(cpuset_cpus="4000"), InvalidArgument, "4000"),
        (Limits(cpuset_cpus="2-1"), InvalidArgument, "2-1"),
        (Limits(device_rates=(DeviceRate(path="/proc", what="read_bps", rate=1),)), InvalidArgument, "no disk"),
        (
            Limits(device_rates=(DeviceRate(path="/dev/absent", what="read_bps", rate=1),)),
            InvalidArgument,
            "/dev/absent",
        ),
        (Limits(storage_bytes=MIB), InvalidArgument, "writable layer"),
        (Limits(ulimits=(Ulimit(name="nofile", soft=5, hard=4),)), InvalidArgument, "above the hard"),
        (Limits(ulimits=(Ulimit(name="files", soft=5, hard=4),)), InvalidArgument, "files"),
    ],
)
def test_what_cannot_be_kept_is_refused_at_create(
    host: EngineHost, engine: Engine, wanted: Limits, error: type[Exception], text: str
) -> None:
    """Before anything is made: no container, no cgroup, no directory."""
    spec = host.spec("true", limits=wanted)
    with pytest.raises(error, match=text):
        engine.create(spec, 1)
    assert spec.id not in engine.store.ids()
    assert not engine.store.directory(spec.id).exists()
    assert host.cgroups() == []


def test_limits_change_while_it_runs(host: EngineHost, engine: Engine) -> None:
    """update: less processor and other memory at once, in the spec for good; 0 takes a limit away."""
    spec = host.spec(f"({BUSY}) & {BUSY}", limits=Limits(cpus=1.5, memory_bytes=64 * MIB))
    started(engine, spec)
    for memory, swap in ((128 * MIB, 0), (256 * MIB, 512 * MIB), (32 * MIB, 0), (0, 0), (64 * MIB, -1), (64 * MIB, 0)):
        changed = Limits(cpus=0.3, memory_bytes=memory, memory_swap_bytes=swap)
        assert adjust.update(engine, spec.id, changed).spec.limits == changed
        text = control_file(engine, spec, "memory", "memory.limit_in_bytes", "memory.max")
        assert text == str(memory) if memory else text == "max" or int(text) > 1 << 60
    assert cpu_share(engine, spec, 1.0) <= 0.4
    again = host.engine()
    assert again.inspect(spec.id).spec.limits == Limits(cpus=0.3, memory_bytes=64 * MIB)


def test_a_change_that_is_refused_changes_nothing(host: EngineHost, engine: Engine) -> None:
    """Memory is written before the processors that are not there: both are as they were, files and spec."""
    before = Limits(memory_bytes=64 * MIB, pids=50)
    spec = host.spec("sleep 60", limits=before)
    started(engine, spec)
    with pytest.raises(InvalidArgument, match="4000"):
        adjust.update(engine, spec.id, replace(before, memory_bytes=128 * MIB, cpuset_cpus="4000"))
    assert control_file(engine, spec, "memory", "memory.limit_in_bytes", "memory.max") == str(64 * MIB)
    assert engine.inspect(spec.id).spec.limits == before
    with pytest.raises(InvalidArgument, match="ulimits"):
        adjust.update(engine, spec.id, replace(before, ulimits=(Ulimit(name="core", soft=0, hard=0),)))


def test_less_memory_than_in_use_is_refused_not_killed(host: EngineHost, engine: Engine) -> None:
    """update below what the container holds: an error, on both versions, and it lives."""
    spec = host.spec(
        "dd if=/dev/zero of=/dev/shm/held bs=1M count=40; echo held; sleep 60", limits=Limits(memory_bytes=128 * MIB)
    )
    started(engine, spec)
    until(lambda: "held" in output(engine, spec))
    with pytest.raises(InvalidArgument):
        adjust.update(engine, spec.id, Limits(memory_bytes=16 * MIB))
    assert engine.inspect(spec.id).state == State.RUNNING
    assert control_file(engine, spec, "memory", "memory.limit_in_bytes", "memory.max") == str(128 * MIB)


def test_limits_of_one_that_does_not_run_hold_at_its_start(host: EngineHost, engine: Engine) -> None:
    """update of a created container."""
    spec = host.spec("sleep 60")
    engine.create(spec, 1)
    adjust.update(engine, spec.id, Limits(pids=33))
    engine.start(spec.id)
    assert control_file(engine, spec, "pids", "pids.max", "pids.max") == "33"


def test_a_paused_container_stands_still(host: EngineHost, engine: Engine) -> None:
    """No cycle is spent; exec and attach are refused; an agent that is started again knows it; unpause lets it go on."""
    spec = host.spec("i=0; while :; do i=$((i+1)); echo $i > /count; done")
    started(engine, spec)
    count = engine.store.directory(spec.id) / "layer/upper/count"
    until(lambda: control.read(count).strip() > "")
    assert adjust.pause(engine, spec.id).state == State.PAUSED
    assert adjust.pause(engine, spec.id).state == State.PAUSED
    assert cpu_share(engine, spec, 0.3) == 0
    with pytest.raises(WrongState, match="paused"):
        engine.running_pid(spec.id)
    with pytest.raises(WrongState, match="paused"):
        engine.roles.begin(spec.id, "m1", "source", 1)
    engine = host.engine()
    assert engine.inspect(spec.id).state == State.PAUSED
    assert adjust.look(engine, spec.id)[1].tasks == 1
    assert [one.pid for one in adjust.top(engine, spec.id)] == [1]
    assert adjust.unpause(engine, spec.id).state == State.RUNNING
    with pytest.raises(WrongState, match="not paused"):
        adjust.unpause(engine, spec.id)
    assert cpu_share(engine, spec, 0.3) > 0


@pytest.mark.parametrize("end", ["stop", "kill", "remove"])
def test_a_paused_container_can_be_ended(host: EngineHost, engine: Engine, end: str) -> None:
    """stop gets through to the program, which ends by itself; kill and rm -f need not wait for anybody."""
    spec = host.spec("trap 'exit 7' TERM; echo ready; while :; do sleep 0.05; done", stop_timeout_s=20)
    started(engine, spec)
    until(lambda: "ready" in output(engine, spec))
    adjust.pause(engine, spec.id)
    verbs: dict[str, Callable[[], object]] = {
        "stop": lambda: engine.stop(spec.id),
        "kill": lambda: engine.kill(spec.id),
        "remove": lambda: engine.remove(spec.id, force=True),
    }
    verbs[end]()
    if end != "remove":
        assert engine.wait(spec.id, 20).exit_code == (7 if end == "stop" else 137)
    assert host.cgroups() == []
    if end == "stop":
        assert engine.start(spec.id).state == State.RUNNING


def test_other_signals_wait_until_it_goes_on(host: EngineHost, engine: Engine) -> None:
    """kill -s USR1 of a paused container is kept, not lost, and does not let it go on."""
    spec = host.spec("trap 'echo usr' USR1; echo ready; while :; do sleep 0.05; done")
    started(engine, spec)
    until(lambda: "ready" in output(engine, spec))
    adjust.pause(engine, spec.id)
    engine.kill(spec.id, signal.Signals.SIGUSR1.name)
    time.sleep(0.2)
    assert engine.inspect(spec.id).state == State.PAUSED
    assert "usr" not in output(engine, spec)
    adjust.unpause(engine, spec.id)
    until(lambda: "usr" in output(engine, spec))


def test_what_it_uses_is_seen_from_outside(host: EngineHost, engine: Engine) -> None:
    """stats: memory, processes, bytes of its network; top: its own pids, users and command lines."""
    spec = host.spec(
        "dd if=/dev/zero of=/dev/shm/held bs=1M count=20; sleep 61 & nc -w 1 10.77.0.1 9; echo held; sleep 62; true",
        limits=Limits(memory_bytes=128 * MIB),
        user="worker",
    )
    started(engine, spec)
    until(lambda: "held" in output(engine, spec) and len(adjust.top(engine, spec.id)) == 3)
    limit, used = adjust.look(engine, spec.id)
    assert limit == 128 * MIB
    assert 20 * MIB <= used.memory_bytes < 60 * MIB
    assert used.tasks == 3
    assert used.cpu_ns > 0
    assert used.network_sent_bytes > 0
    assert used.network_received_bytes > 0
    processes = adjust.top(engine, spec.id)
    assert processes[0].pid == 1
    assert {one.user for one in processes} == {1000}
    assert {one.parent for one in processes[1:]} == {1}
    assert {one.command for one in processes[1:]} == {"sleep 61", "sleep 62"}
    assert all(one.host_pid in engine.cgroup(spec.id).procs() for one in processes)


def loops(host: EngineHost) -> list[str]:
    """Loop devices whose file lies in this host's directory."""
    found = Path("/sys/block").glob("loop*/loop/backing_file")
    return [path.parts[3] for path in found if str(host.directory) in control.read(path)]


@pytest.mark.needs("sized-layers")
def test_a_full_writable_layer_is_its_own_trouble(host: EngineHost, engine: Engine) -> None:
    """--storage-opt size: ENOSPC inside, the host gives no more than that and gets it back; kept over a boot; no trace after rm."""
    fill = "dd if=/dev/zero of=/big bs=1M count=100 2>&1"
    spec = host.spec(
        f"{fill}; wc -c < /big; echo kept > /kept; sync; echo ready; sleep 60", limits=Limits(storage_bytes=32 * MIB)
    )
    started(engine, spec)
    until(lambda: "ready" in output(engine, spec))
    assert "No space left" in output(engine, spec)
    image = engine.store.directory(spec.id) / "layer.img"
    assert image.stat().st_size == 32 * MIB
    assert 20 * MIB < image.stat().st_blocks * 512 <= 33 * MIB
    assert loops(host)
    assert int(inside(engine, spec, "df -k / | tail -n 1").split()[1]) < 32 * 1024
    assert inside(engine, spec, "rm /big; sync; echo kept > /kept; cat /kept") == "kept\n"
    until(lambda: image.stat().st_blocks * 512 < 16 * MIB)
    with pytest.raises(InvalidArgument, match="storage_bytes"):
        adjust.update(engine, spec.id, Limits(storage_bytes=64 * MIB))

    engine.stop(spec.id, 0)
    disk_file.detach(engine.store.directory(spec.id))  # as a boot leaves it
    until(lambda: not loops(host))
    engine = host.engine()
    assert (engine.store.directory(spec.id) / "layer/upper/kept").read_text() == "kept\n"
    assert engine.start(spec.id).state == State.RUNNING
    assert inside(engine, spec, "cat /kept") == "kept\n"
    engine.remove(spec.id, force=True)
    until(lambda: not loops(host))
    assert not engine.store.directory(spec.id).exists()
    assert not [line for line in host.mounts() if spec.id in line]


@pytest.mark.needs("sized-layers")
def test_a_disk_is_limited_below_a_layer_of_its_own_too(host: EngineHost, engine: Engine) -> None:
    """A sized layer lies in a file on the disk: what its device writes there counts as the container's."""
    rates = (DeviceRate(path=disk(host), what="write_bps", rate=2 * MIB),)
    spec = host.spec("sleep 60", limits=Limits(storage_bytes=64 * MIB, device_rates=rates))
    started(engine, spec)
    began = time.monotonic()
    assert "records out" in inside(engine, spec, "dd if=/dev/zero of=/big bs=1M count=5 oflag=direct 2>&1")
    assert time.monotonic() - began > 2.0


def test_nothing_is_changed_while_it_moves(host: EngineHost, engine: Engine) -> None:
    """update, pause and unpause during a move are refused and name it; looking is not."""
    spec = host.spec("sleep 60", limits=Limits(pids=20))
    started(engine, spec)
    engine.roles.begin(spec.id, "m1", "source", 1)
    for change in (
        lambda: adjust.update(engine, spec.id, Limits(pids=30)),
        lambda: adjust.pause(engine, spec.id),
        lambda: adjust.unpause(engine, spec.id),
    ):
        with pytest.raises(WrongState, match="move m1"):
            change()
    assert control_file(engine, spec, "pids", "pids.max", "pids.max") == "20"
    assert adjust.look(engine, spec.id)[1].tasks == 1
    assert [one.pid for one in adjust.top(engine, spec.id)] == [1]
