"""`python -m bench.start`: how long `run --rm NAME true` takes, as the engine sees it and as the user does.

A lab of its own with one host. The engine's side is two calls to the agent, through its own socket: Create, which starts it too, and
Wait, for a container with a network, an overlay and a user namespace; from the first call to the answer of the last. The user's side is
the command line, through the coordinator and the tunnel. Peers are commands given by `--peer NAME=COMMAND`, timed from here like the
command line; so a command that first enters another root is given beside one that only does that. All take turns, so that they share
the machine's mood. See docs/bench.md.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import resource
import shlex
import statistics
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from bench import cpu, in_lab, table
from migrate.errors import MigrateError
from migrate.lab import down, images, layout, nodes, up
from migrate.lab.demo_run import CheckFailed, Shell
from migrate.lab.layout import Lab
from protos import agent_pb2, agent_pb2_grpc, types_pb2

PREFIX = layout.prefix_from({"MIGRATE_LAB": os.environ.get("BENCH_LAB") or "mstart"})
IMAGE, PROGRAM = "redis", ("busybox", "true")
TEMPLATE = "template"
MIGRATE = Path(sys.executable).with_name("migrate")


@dataclass(kw_only=True)
class Subject:
    """`once()` does it one time and returns seconds by what they went into, the whole under ""."""

    name: str
    once: Callable[[], dict[str, float]]
    cpu_s: Callable[[], float]  # used so far by all who work for it
    samples: list[dict[str, float]] = field(default_factory=list)
    cpu_samples: list[float] = field(default_factory=list)

    def sample(self) -> None:
        before = self.cpu_s()
        self.samples.append(self.once())
        self.cpu_samples.append(self.cpu_s() - before)

    def median_s(self, part: str = "") -> float:
        return statistics.median(sample[part] for sample in self.samples)


class Engine:
    """The agent of host1, asked without anybody between. `template_id`: a container like it, with an address that nobody uses."""

    def __init__(self, lab: Lab, template_id: str) -> None:
        supervisor = nodes.supervisors(lab.state_dir)["host1"]
        self._channel = grpc.insecure_channel(f"unix:/proc/{supervisor}/root/run/migrate/agent.sock")
        self._calls = agent_pb2_grpc.ContainersStub(self._channel)  # type: ignore[no-untyped-call]  # generated
        self._template = self._calls.Inspect(agent_pb2.InspectRequest(id=template_id)).spec

    def run(self) -> dict[str, float]:
        spec = types_pb2.ContainerSpec()
        spec.CopyFrom(self._template)
        spec.id, spec.name, spec.remove_on_exit = uuid.uuid4().hex, "bench", True
        begun = time.perf_counter()
        self._calls.Create(agent_pb2.CreateRequest(spec=spec, epoch=1, start=True))
        started = time.perf_counter()
        try:
            ended = self._calls.Wait(agent_pb2.WaitRequest(id=spec.id))
        except grpc.RpcError as exc:
            if exc.code() is not grpc.StatusCode.NOT_FOUND:
                raise
            ended = None  # it has ended and removed itself before we asked
        done = time.perf_counter()
        if ended is not None and ended.exit_code != 0:
            raise CheckFailed(f"true ended with {ended.exit_code}: {ended.error}")
        return {"create, start": started - begun, "exit": done - started, "": done - begun}

    def close(self) -> None:
        self._channel.close()


def _children_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def command(words: Sequence[str], environment: dict[str, str]) -> dict[str, float]:
    """Run it to its end. Raises CheckFailed where it fails."""
    begun = time.perf_counter()
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    took = time.perf_counter() - begun
    if done.returncode:
        raise CheckFailed(f"{shlex.join(words)}: status {done.returncode}: {(done.stderr or done.stdout)[-500:]}")
    return {"": took}


def subjects(lab: Lab, engine: Engine, peers: Sequence[tuple[str, str]]) -> list[Subject]:
    """Whoever is measured, ours first."""
    environment = os.environ | {"MIGRATE_COORDINATOR": str(lab.socket)}
    plain = dict(os.environ)

    def fleet_s() -> float:
        return cpu.used_s(lab, "host1", "controller") + _children_s()

    def ours(*words: str) -> Callable[[], dict[str, float]]:
        return lambda: command([str(MIGRATE), *words], environment)

    made = [
        Subject(name="engine: create, start, exit", once=engine.run, cpu_s=lambda: cpu.used_s(lab, "host1")),
        Subject(name="migrate run --rm", once=ours("run", "--rm", "--host", "host1", IMAGE, *PROGRAM), cpu_s=fleet_s),
        Subject(name="migrate ps", once=ours("ps"), cpu_s=fleet_s),
        Subject(name="migrate --help", once=ours("--help"), cpu_s=_children_s),
    ]
    for name, line in peers:
        words = shlex.split(line)
        made.append(Subject(name=name, once=lambda words=words: command(words, plain), cpu_s=_children_s))  # type: ignore[misc]
    return made


def lines(measured: Sequence[Subject]) -> list[str]:
    """The table."""
    cells = [("", "", f"median of {len(measured[0].samples)}", "(least-most)", "CPU ms")]
    for one in measured:
        whole = [sample[""] * 1e3 for sample in one.samples]
        cells.append(
            (
                one.name,
                "ms",
                f"{statistics.median(whole):.1f}",
                f"({min(whole):.1f}-{max(whole):.1f})",
                f"{statistics.mean(one.cpu_samples) * 1e3:.1f}",
            )
        )
        for part in (name for name in one.samples[0] if name):
            cells.append((f"    {part}", "ms", f"{one.median_s(part) * 1e3:.1f}", "", ""))
    return table.align(cells, left=2)


def _run(arguments: argparse.Namespace) -> tuple[int, list[Subject]]:
    measured: list[Subject] = []
    try:
        down.down(PREFIX, force=True)
        lab = up.up(PREFIX, hosts=1, criu="", say=print)
        shell = Shell(lab)
        shell.migrate("image", "import", str(images.redis_rootfs()), IMAGE, "--host", "host1")
        shell.migrate("create", "--name", TEMPLATE, "--host", "host1", IMAGE, *PROGRAM)
        engine = Engine(lab, shell.container(TEMPLATE)["id"])
        with contextlib.closing(engine):
            measured = subjects(lab, engine, arguments.peer)
            for one in measured:  # caches, filters, the first of everything
                one.once()
            for number in range(arguments.repeat):
                for one in measured:
                    time.sleep(arguments.pause)
                    one.sample()
                print(f"  {number + 1} of {arguments.repeat}", flush=True)
        return 0, measured
    except (CheckFailed, MigrateError, OSError, grpc.RpcError) as exc:
        print(f"FAILED: {exc}")
        return 1, []
    finally:
        down.down(PREFIX, force=True)


def _peer(text: str) -> tuple[str, str]:
    name, equals, line = text.partition("=")
    if not equals or not name or not line:
        raise argparse.ArgumentTypeError(f"{text!r} is not NAME=COMMAND")
    return name, line


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.start", description="How long a container's start takes.")
    parser.add_argument("--repeat", type=int, default=20, metavar="N", help="times each (default: 20)")
    parser.add_argument("--pause", type=float, default=0.3, metavar="S", help="before each (default: 0.3)")
    parser.add_argument(
        "--peer", type=_peer, action="append", default=[], metavar="NAME=COMMAND", help="one more to time; repeatable"
    )
    parser.add_argument("--format", choices=("table", "json"), default="table")
    arguments = parser.parse_args(argv)
    before = os.getloadavg()[0]
    status, measured = in_lab.alone(PREFIX, lambda: _run(arguments))
    if measured and arguments.format == "json":
        facts = {one.name: {"samples": one.samples, "cpu_s": one.cpu_samples} for one in measured}
        print(json.dumps({"cpus": os.cpu_count(), "subjects": facts}))
    elif measured:
        print(*lines(measured), sep="\n")
        print(f"{os.cpu_count()} CPUs; load average before {before:.1f}, after {os.getloadavg()[0]:.1f}")
    return status


if __name__ == "__main__":
    sys.exit(main())
