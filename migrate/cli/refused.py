"""Options that Docker's and Podman's users know and that are not there: each says so, and what to use, instead of being unknown."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

_NETWORK = "containers reach each other by address here, which stays with them over every move"

# Option: (whether it takes a value, why it is not there and what to use).
RUN: dict[str, tuple[bool, str]] = {
    "--privileged": (
        False,
        "there are no privileged containers: ask for what it needs with --cap-add, --device,"
        " --security-opt seccomp=unconfined or --userns host",
    ),
    "--network-alias": (
        True,
        f"no resolver answers for names of containers: {_NETWORK}; use --ip for this one and --add-host NAME:ADDRESS for the others",
    ),
    "--link": (True, f"{_NETWORK}: use --add-host NAME:ADDRESS, with the address of migrate inspect, or of its --ip"),
    "--link-local-ip": (True, "one interface, one address: use --ip"),
    "--ip6": (True, "networks of containers are IPv4: use --ip"),
    "--gpus": (
        True,
        "a GPU's state is in its driver, where no move can take it from: use --device /dev/NODE for each node and do without moves",
    ),
    "--runtime": (True, "the agent is the runtime: leave it out"),
    "--cgroup-parent": (
        True,
        "a container's cgroups are its host's affair, or it could not move: set cgroup_parent in that host's agent.toml",
    ),
    "--isolation": (True, "that is of Windows: leave it out"),
    "--kernel-memory": (True, "kernels from 5.11 on have no such limit: -m counts the kernel's memory for it, too"),
    "--cpu-rt-period": (True, "real-time groups of cgroups are not in kernels of distributions: use --ulimit rtprio=N"),
    "--cpu-rt-runtime": (
        True,
        "real-time groups of cgroups are not in kernels of distributions: use --ulimit rtprio=N",
    ),
    "--volume-driver": (True, "volumes lie on their host, or are --shared: migrate volume create --shared PATH NAME"),
    "--init-path": (True, "the small init is the agent's own: use --init"),
    "--pod": (True, "there are no pods, for each container moves by itself: use --network host or published ports"),
    "--rootfs": (False, "a container is made of an image: migrate import FILE NAME makes one of a tar"),
    "--env-host": (False, "the host is another machine: name what it needs, -e NAME takes the value from here"),
    "--sdnotify": (True, "nothing of a container reaches the host's systemd: use --health-cmd"),
    "--blkio-weight-device": (
        True,
        "one weight for all disks: use --blkio-weight, and --device-read-bps and its like for one",
    ),
}


class Refuse(argparse.Action):
    """The option is known, and this is what it says."""

    def __init__(self, option_strings: Sequence[str], dest: str, *, why: str, nargs: int | None = None) -> None:
        super().__init__(option_strings, dest, nargs=nargs, help=argparse.SUPPRESS, default=argparse.SUPPRESS)
        self.why = why

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        parser.error(f"{self.option_strings[0]} is not there: {self.why}")


def add_options(parser: argparse.ArgumentParser) -> None:
    """All of `run` and `create`."""
    for option, (takes_value, why) in RUN.items():
        parser.add_argument(option, action=Refuse, nargs=None if takes_value else 0, why=why)
    parser.add_argument("--systemd", nargs="?", const="true", default="false", type=systemd, help=argparse.SUPPRESS)


def systemd(text: str) -> str:
    """Podman's: "false" is what there is."""
    if text.lower() in ("false", "0"):
        return "false"
    raise argparse.ArgumentTypeError(
        "systemd as a container's init needs cgroups of its own to write to, and CRIU cannot take those along:"
        " run the service itself, with --init and --restart"
    )
