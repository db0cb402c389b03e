"""`python -m bench.overhead`: what a container costs the program that runs in it, as ratios of what the host gives the same program.

A lab of one host. The same program (overhead_work.py), run by the same Python, measures on the host (in a directory with the image's
files, in the host's own namespaces) and in a container; they take turns. A client on another machine of the lab measures the network: to
a server on the host, to one in the container through the bridge, and to that one through a published port. See docs/bench.md.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from bench import in_lab, table
from migrate.errors import MigrateError
from migrate.lab import down, images, layout, nodes, up
from migrate.lab.demo_run import CheckFailed, Outside, Shell
from migrate.lab.layout import Lab

PREFIX = layout.prefix_from({"MIGRATE_LAB": os.environ.get("BENCH_LAB") or "mover"})
WORK = (Path(__file__).with_name("overhead_work.py")).read_text()
NAME, IMAGE, VOLUME = "bench", "python", "bench-data"
PORT, PUBLISHED, HOST_PORT = 7000, 7001, 7002
HOST = "host"


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A row. `more`: a greater figure is the better one."""

    key: str
    title: str
    unit: str
    digits: int
    more: bool = True


FIGURES = (
    Figure(key="arithmetic", title="CPU: arithmetic", unit="M/s", digits=2),
    Figure(key="sha256", title="CPU: SHA-256", unit="MB/s", digits=0),
    Figure(key="copy", title="memory: copy", unit="GB/s", digits=2),
    Figure(key="touch", title="memory: new pages", unit="k/s", digits=0),
    Figure(key="read", title="disk: random 4 KiB reads", unit="1/s", digits=0),
    Figure(key="write", title="disk: random 4 KiB writes", unit="1/s", digits=0),
    Figure(key="round trip", title="TCP: round trip", unit="us", digits=0, more=False),
    Figure(key="throughput", title="TCP: throughput", unit="Gbit/s", digits=2),
)
Samples = dict[str, dict[str, list[float]]]  # where, then what


class Bench:
    """The lab, the container in it, and the image's files on the host."""

    def __init__(self, lab: Lab, root: Path) -> None:
        self._lab, self._root, self._shell = lab, root, Shell(lab)
        self._address = ""
        self.samples: Samples = {}

    @contextlib.contextmanager
    def servers(self) -> Iterator[None]:
        """The container, whose program serves, and the same server on the host."""
        migrate, image = self._shell.migrate, images.python_rootfs()
        migrate("image", "import", str(image), IMAGE, "--host", "host1")
        subprocess.run(["tar", "-xf", str(image), "-C", str(self._root)], check=True)
        serve = ("python3", "-c", WORK, "serve")
        options = ("-p", f"{PUBLISHED}:{PORT}", "-v", f"{VOLUME}:/data")
        migrate("run", "-d", "--name", NAME, "--host", "host1", *options, IMAGE, *serve, str(PORT))
        self._address = self._shell.container(NAME)["address"].partition("/")[0]
        on_host = subprocess.Popen(self._host_command(*serve, str(HOST_PORT)))
        try:
            for address, port in self._doors().values():
                Outside(self._lab, address, port).wait_for_server()
            yield
        finally:
            on_host.kill()
            on_host.wait()

    def turn(self) -> None:
        """Everything once."""
        for verb in ("cpu", "memory"):
            self._keep(HOST, self._host_command("python3", "-c", WORK, verb))
            self._keep("container", self._exec(verb))
        self._keep(HOST, self._host_command("python3", "-c", WORK, "disk", "/tmp"))  # of the image's root
        self._keep("container", self._exec("disk", "/tmp"))  # its overlay
        self._keep("volume", self._exec("disk", "/data"))
        for where, (address, port) in self._doors().items():
            for verb in ("round-trip", "throughput"):
                words = [sys.executable, "-c", WORK, verb, address, str(port)]
                self._keep(where, nodes.command(self._lab, "client", words))

    def _doors(self) -> dict[str, tuple[str, int]]:
        host = self._lab.node("host1").address
        return {HOST: (host, HOST_PORT), "container": (self._address, PORT), "published": (host, PUBLISHED)}

    def _host_command(self, *words: str) -> list[str]:
        return nodes.command(self._lab, "host1", ["chroot", str(self._root), *words])

    def _exec(self, *words: str) -> list[str]:
        return [str(Path(sys.executable).with_name("migrate")), "exec", NAME, "python3", "-c", WORK, *words]

    def _keep(self, where: str, command: Sequence[str]) -> None:
        environment = os.environ | {"MIGRATE_COORDINATOR": str(self._lab.socket)}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
        if done.returncode:
            raise CheckFailed(f"{where}: status {done.returncode}: {done.stderr[-500:]}")
        for key, figure in json.loads(done.stdout).items():
            self.samples.setdefault(where, {}).setdefault(key, []).append(figure)


def lines(samples: Samples) -> list[str]:
    """The figures down, where across: medians, and in brackets what is left of the host's: 1.00 is the same, more is better."""
    places = [HOST, *(place for place in samples if place != HOST)]
    cells = [(f"median of {len(samples[HOST]['copy'])}", "", *places)]
    for figure in FIGURES:
        host = statistics.median(samples[HOST][figure.key])
        row = [figure.title, figure.unit]
        for place in places:
            values = samples[place].get(figure.key)
            if not values:
                row.append("-")
                continue
            median = statistics.median(values)
            left = median / host if figure.more else host / median
            row.append(f"{median:.{figure.digits}f}" + ("" if place == HOST else f" ({left:.2f})"))
        cells.append(tuple(row))
    return table.align(cells, left=2)


def _run(arguments: argparse.Namespace) -> tuple[int, Samples]:
    root: Path | None = None
    try:
        down.down(PREFIX, force=True)
        lab = up.up(PREFIX, hosts=1, criu="", say=print)
        root = Path(tempfile.mkdtemp(prefix="overhead-", dir=lab.state_dir))
        root.chmod(0o755)
        bench = Bench(lab, root)
        with bench.servers():
            for number in range(arguments.repeat):
                bench.turn()
                print(f"  {number + 1} of {arguments.repeat}", flush=True)
        return 0, bench.samples
    except (CheckFailed, MigrateError, OSError, subprocess.SubprocessError) as exc:
        print(f"FAILED: {exc}")
        return 1, {}
    finally:
        if root:
            shutil.rmtree(root, ignore_errors=True)
        down.down(PREFIX, force=True)


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.overhead", description="What a container costs a program.")
    parser.add_argument("--repeat", type=int, default=5, metavar="N", help="times each (default: 5)")
    parser.add_argument("--format", choices=("table", "json"), default="table")
    arguments = parser.parse_args(argv)
    before = os.getloadavg()[0]
    status, samples = in_lab.alone(PREFIX, lambda: _run(arguments))
    if samples and arguments.format == "json":
        print(json.dumps({"cpus": os.cpu_count(), "samples": samples}))
    elif samples:
        print(*lines(samples), sep="\n")
        print(f"{os.cpu_count()} CPUs; load average before {before:.1f}, after {os.getloadavg()[0]:.1f}")
    return status


if __name__ == "__main__":
    sys.exit(main())
