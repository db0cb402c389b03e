"""The limits of a container as values of control files, on both versions of cgroups. Standard library only.

    check(limits)                    what makes no sense, on any host
    apply(directories, limits)       the files written; with `before`, also what is no longer limited

docs/limits.md has the table of flags, files and what each limit does. Conversions between the versions are runc's, so that a
number means on version 2 what people know it to mean.
"""

from __future__ import annotations

import dataclasses
import errno
import math
import os
import re
from pathlib import Path

from agent.engine import control, devices, disk
from agent.engine.control import Directories
from agent.engine.spec import RATES, UNLIMITED, Limits
from agent.errors import InvalidArgument, Unsupported

CPU_PERIOD_US = 100_000
LEAST_MEMORY_BYTES = 6 << 20  # Docker's; below, a start ends in the middle
LEAST_QUOTA_US, LEAST_PERIOD_US, MOST_PERIOD_US = 1000, 1000, 1_000_000  # the kernel's
DEFAULT_SHARES, DEFAULT_WEIGHT = 1024, 100
_CPU_LIST = re.compile(r"\d+(-\d+)?(,\d+(-\d+)?)*")
_V1_RATES = {
    "read_bps": "blkio.throttle.read_bps_device",
    "write_bps": "blkio.throttle.write_bps_device",
    "read_iops": "blkio.throttle.read_iops_device",
    "write_iops": "blkio.throttle.write_iops_device",
}
_V2_RATES = {"read_bps": "rbps", "write_bps": "wbps", "read_iops": "riops", "write_iops": "wiops"}


def check(limits: Limits) -> None:
    """Raises InvalidArgument for what no host can keep, naming the flag that says it."""

    def require(holds: bool, text: str, hint: str = "") -> None:
        if not holds:
            raise InvalidArgument(text, hint=hint)

    memory, both = limits.memory_bytes, limits.memory_swap_bytes
    least = f"the least memory is {LEAST_MEMORY_BYTES >> 20} MiB"
    require(not memory or memory >= LEAST_MEMORY_BYTES, f"{memory} bytes of memory are too few", least)
    require(
        both >= UNLIMITED, f"memory and swap cannot be {both} bytes", "--memory-swap takes a size, or -1 for no bound"
    )
    require(not both or bool(memory), "a limit of memory and swap needs one of memory", "--memory SIZE")
    require(
        both in (0, UNLIMITED) or both >= memory,
        f"memory and swap together ({both} bytes) cannot be less than memory ({memory} bytes)",
        "--memory-swap is the sum of both; the same as --memory means no swap",
    )
    require(
        not memory or limits.memory_reservation_bytes <= memory,
        f"a reservation of {limits.memory_reservation_bytes} bytes is more than the limit of {memory}",
        "lower --memory-reservation",
    )
    require(
        limits.cpus >= 0 and math.isfinite(limits.cpus),
        f"{limits.cpus} processors",
        "--cpus takes a number such as 1.5",
    )
    by_quota = bool(limits.cpu_quota_us or limits.cpu_period_us)
    require(
        not (limits.cpus and by_quota), "--cpus and --cpu-quota or --cpu-period say the same thing", "give one of them"
    )
    require(
        not limits.cpu_period_us or LEAST_PERIOD_US <= limits.cpu_period_us <= MOST_PERIOD_US,
        f"a period of {limits.cpu_period_us} µs",
        f"--cpu-period takes {LEAST_PERIOD_US} to {MOST_PERIOD_US}",
    )
    require(
        not limits.cpu_quota_us or limits.cpu_quota_us >= LEAST_QUOTA_US,
        f"a quota of {limits.cpu_quota_us} µs",
        f"--cpu-quota takes {LEAST_QUOTA_US} or more",
    )
    require(
        not limits.cpu_shares or 2 <= limits.cpu_shares <= 262144,
        f"{limits.cpu_shares} shares",
        "--cpu-shares takes 2 to 262144",
    )
    cpus = limits.cpuset_cpus
    require(
        not cpus or bool(_CPU_LIST.fullmatch(cpus)),
        f"{cpus!r} names no processors",
        "--cpuset-cpus takes a list such as 0-2,5",
    )
    if cpus:
        cpu_set(cpus)
    mems = limits.cpuset_mems
    require(
        not mems or bool(_CPU_LIST.fullmatch(mems)),
        f"{mems!r} names no memory nodes",
        "--cpuset-mems takes a list such as 0 or 0-1",
    )
    if mems:
        cpu_set(mems)
    swappiness = limits.memory_swappiness
    require(
        swappiness is None or 0 <= swappiness <= 100,
        f"a swappiness of {swappiness}",
        "--memory-swappiness takes 0 to 100",
    )
    require(
        not limits.oom_kill_disable or bool(memory),
        "without a limit of memory the host would run out of it, and its own processes would be killed",
        "--oom-kill-disable needs --memory SIZE",
    )
    weight = limits.blkio_weight
    require(not weight or 10 <= weight <= 1000, f"a weight of {weight}", "--blkio-weight takes 10 to 1000")
    for rate in limits.device_rates:
        require(rate.what in RATES, f"{rate.what!r} is no rate of a device", f"known are {', '.join(RATES)}")
        require(rate.path.startswith("/"), f"{rate.path!r} is no absolute path", "name the device, or any path on it")
        require(rate.rate > 0, f"a rate of {rate.rate} for {rate.path}", "a rate is more than 0")
    names = [(rate.path, rate.what) for rate in limits.device_rates]
    require(len(set(names)) == len(names), "a device has two rates of the same kind", "give one of them")
    least = f"--storage-opt size= takes {disk.LEAST_BYTES >> 20}m or more"
    size = limits.storage_bytes
    require(not size or size >= disk.LEAST_BYTES, f"a writable layer of {size} bytes", least)
    require(
        -1000 <= limits.oom_score_adj <= 1000,
        f"an OOM score of {limits.oom_score_adj}",
        "--oom-score-adj takes -1000 to 1000",
    )


def cpu_set(text: str) -> set[int]:
    """{0, 1, 2, 5} of "0-2,5". Raises InvalidArgument for a range that goes backwards or has no end."""
    found: set[int] = set()
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        low, high = int(first), int(last or first)
        if high < low or high > 65535:
            raise InvalidArgument(
                f"{part!r} is no range of processors", hint="--cpuset-cpus takes a list such as 0-2,5"
            )
        found.update(range(low, high + 1))
    return found


def controllers(limits: Limits) -> set[str]:
    """By their version 2 names: what these limits need."""
    needed = {
        "memory": limits.memory_bytes
        or limits.memory_swap_bytes
        or limits.memory_reservation_bytes
        or limits.memory_swappiness is not None,
        "cpu": limits.cpus or limits.cpu_shares or limits.cpu_period_us or limits.cpu_quota_us,
        "cpuset": limits.cpuset_cpus or limits.cpuset_mems,
        "pids": limits.pids,
        "io": limits.blkio_weight or limits.device_rates,
    }
    return {name for name, wanted in needed.items() if wanted}


def unhurried(limits: Limits) -> Limits:
    """Without the quota of processor time. Restoring tasks is work in their own cgroup: with 0.05 processors it took 0.5 s, not 0.1."""
    return dataclasses.replace(limits, cpus=0.0, cpu_quota_us=0, cpu_period_us=0)


def apply(directories: Directories, limits: Limits, before: Limits | None = None) -> None:
    """Write what differs from `before`, which is what the files say now; None: a cgroup that was just made.

    Raises Unsupported naming the controller that is missing, InvalidArgument for what the kernel refuses; the files may then say
    a part of both.
    """
    old = before or Limits()
    for part in (
        _memory,
        _reservation,
        _swappiness,
        _oom_killer,
        _quota,
        _shares,
        _cpuset,
        _mems,
        _pids,
        _weight,
        _rates,
    ):
        part(directories, limits, old)


def _memory(directories: Directories, limits: Limits, old: Limits) -> None:
    """Without a word about swap there is none: a limit that swap softens is no limit."""
    if (limits.memory_bytes, limits.memory_swap_bytes) == (old.memory_bytes, old.memory_swap_bytes):
        return
    most = limits.memory_bytes or UNLIMITED
    both = limits.memory_swap_bytes or most
    is_v1, path = directories.files("memory", v1=("memory.limit_in_bytes",), v2=("memory.max",))
    if is_v1:
        _memory_v1(path, path.with_name("memory.memsw.limit_in_bytes"), most, both)
        return
    if most != UNLIMITED:
        _make_room(path.parent, most)
    swap = path.with_name("memory.swap.max")
    if swap.exists():
        control.write(swap, "max" if both == UNLIMITED else str(both - most))
    elif limits.memory_swap_bytes > limits.memory_bytes:
        raise control.missing("memory", f"there is no {swap}: the kernel does not account for swap")
    control.write(path, "max" if most == UNLIMITED else str(most))


def _memory_v1(path: Path, swap: Path, most: int, both: int) -> None:
    if not swap.exists():
        if both not in (most, UNLIMITED):
            raise control.missing("memory", f"there is no {swap}: boot with swapaccount=1")
        control.write(path, str(most))
        return
    # The kernel keeps memory at or below memory and swap: which of them first depends on the direction.
    grows = both == UNLIMITED or (most != UNLIMITED and most > int(control.read(swap) or 0))
    first, second = ((swap, both), (path, most)) if grows else ((path, most), (swap, both))
    for file, value in (first, second):
        control.write(file, str(value))


def _make_room(directory: Path, most: int) -> None:
    """Version 2 would kill for a limit below what is in use; version 1 refuses it. Here it is refused on both."""
    for _ in range(2):
        used = int(control.read(directory / "memory.current") or 0)
        if used <= most:
            return
        try:
            (directory / "memory.reclaim").write_text(str(used - most))
        except OSError as exc:
            if exc.errno not in (errno.EAGAIN, errno.ENOENT, errno.EACCES):  # less was to be had; or an old kernel
                raise
    raise InvalidArgument(
        f"the container uses {used} bytes of memory, which is more than a limit of {most}",
        hint="give it more, or let it free memory first",
    )


def _reservation(directories: Directories, limits: Limits, old: Limits) -> None:
    wanted = limits.memory_reservation_bytes
    if wanted == old.memory_reservation_bytes:
        return
    is_v1, path = directories.files("memory", v1=("memory.soft_limit_in_bytes",), v2=("memory.low",))
    control.write(path, str(wanted or UNLIMITED) if is_v1 else str(wanted))
    if not is_v1:
        protect_parent(path.parent.parent)


def protect_parent(parent: Path) -> None:
    """Version 2: a cgroup is protected no further than its parent is: that gets the sum of what is below it."""
    if not (parent / "memory.low").exists():
        return  # the root
    texts = [control.read(child / "memory.low").strip() for child in parent.iterdir() if child.is_dir()]
    control.write(parent / "memory.low", str(sum(int(text) for text in texts if text.isdigit())))


def _swappiness(directories: Directories, limits: Limits, old: Limits) -> None:
    wanted = limits.memory_swappiness
    if wanted == old.memory_swappiness:
        return
    is_v1, path = directories.files("memory", v1=("memory.swappiness",), v2=("memory.max",))
    if not is_v1:
        raise Unsupported(
            "version 2 of cgroups has no swappiness of a container",
            hint="leave --memory-swappiness out; --memory-swap bounds its swap, with -m SIZE the same it has none",
        )
    control.write(path, str(wanted) if wanted is not None else control.read(path.parent.parent / path.name).strip())


def _oom_killer(directories: Directories, limits: Limits, old: Limits) -> None:
    if limits.oom_kill_disable == old.oom_kill_disable:
        return
    is_v1, path = directories.files("memory", v1=("memory.oom_control",), v2=("memory.max",))
    if not is_v1:
        raise Unsupported(
            "version 2 of cgroups always kills at the limit of memory",
            hint="leave --oom-kill-disable out; --memory-reservation keeps memory for it, --oom-score-adj spares its processes",
        )
    control.write(path, "1" if limits.oom_kill_disable else "0")


def _quota(directories: Directories, limits: Limits, old: Limits) -> None:
    if cpu_max(limits) == cpu_max(old):
        return
    quota, period = cpu_max(limits)
    is_v1, path = quota_file(directories)
    if is_v1:
        control.write(path.with_name("cpu.cfs_period_us"), str(period))
        control.write(path, str(quota))
    else:
        control.write(path, f"{'max' if quota == UNLIMITED else quota} {period}")


def quota_file(directories: Directories) -> tuple[bool, Path]:
    """(whether it is version 1's, the file with the quota of processor time). Raises Unsupported."""
    return directories.files("cpu", v1=("cpu.cfs_quota_us",), v2=("cpu.max",))


def cpu_max(limits: Limits) -> tuple[int, int]:
    """(quota, period) in microseconds; UNLIMITED."""
    period = limits.cpu_period_us or CPU_PERIOD_US
    if limits.cpus:
        return max(LEAST_QUOTA_US, round(limits.cpus * period)), period
    return limits.cpu_quota_us or UNLIMITED, period


def _shares(directories: Directories, limits: Limits, old: Limits) -> None:
    if limits.cpu_shares == old.cpu_shares:
        return
    shares = limits.cpu_shares or DEFAULT_SHARES
    is_v1, path = directories.files("cpu", v1=("cpu.shares",), v2=("cpu.weight",))
    control.write(path, str(shares if is_v1 else cpu_weight(shares)))


def cpu_weight(shares: int) -> int:
    """Shares (2 to 262144, others 1024) as weight (1 to 10000, others 100): runc's curve through the three pairs."""
    if shares <= 2:
        return 1
    power = math.log2(min(shares, 262144))
    return min(10000, math.ceil(10 ** ((power * power + 125 * power) / 612 - 7 / 34)))


def _cpuset(directories: Directories, limits: Limits, old: Limits) -> None:
    wanted = limits.cpuset_cpus
    if wanted == old.cpuset_cpus:
        return
    is_v1, path = directories.files("cpuset", v1=("cpuset.cpus",), v2=("cpuset.cpus",))
    effective = path.with_name("cpuset.effective_cpus" if is_v1 else "cpuset.cpus.effective")
    above = path.parent.parent / effective.name
    here = control.read(above).strip()
    # Version 2 would take processors that are not there and quietly use others.
    if here and not cpu_set(wanted) <= cpu_set(here):
        raise InvalidArgument(f"processors {wanted} are not all here: this host gives containers {here}")
    control.write(path, wanted or (here if is_v1 else "\n"))


def _mems(directories: Directories, limits: Limits, old: Limits) -> None:
    """As _cpuset: version 2 would quietly use other nodes than those."""
    wanted = limits.cpuset_mems
    if wanted == old.cpuset_mems:
        return
    is_v1, path = directories.files("cpuset", v1=("cpuset.mems",), v2=("cpuset.mems",))
    here = control.read(path.parent.parent / ("cpuset.effective_mems" if is_v1 else "cpuset.mems.effective")).strip()
    if here and not cpu_set(wanted) <= cpu_set(here):
        raise InvalidArgument(f"memory nodes {wanted} are not all here: this host gives containers {here}")
    control.write(path, wanted or (here if is_v1 else "\n"))


def _pids(directories: Directories, limits: Limits, old: Limits) -> None:
    if limits.pids != old.pids:
        _, path = directories.files("pids", v1=("pids.max",), v2=("pids.max",))
        control.write(path, str(limits.pids or "max"))


def _weight(directories: Directories, limits: Limits, old: Limits) -> None:
    """Only where the disk's scheduler is bfq, or iocost is set up, does the kernel heed it: docs/limits.md."""
    if limits.blkio_weight == old.blkio_weight:
        return
    weight = limits.blkio_weight
    _, path = directories.files(
        "io", v1=("blkio.bfq.weight", "blkio.weight"), v2=("io.bfq.weight", "io.weight")
    )  # fmt: skip
    if weight:
        weight = io_weight(weight) if path.name == "io.weight" else weight
    control.write(path, str(weight or DEFAULT_WEIGHT))


def io_weight(weight: int) -> int:
    """10 to 1000 as 1 to 10000, as runc does."""
    return 1 + (weight - 10) * 9999 // 990


def _rates(directories: Directories, limits: Limits, old: Limits) -> None:
    wanted, gone = set(limits.device_rates), set(old.device_rates)
    if wanted == gone:
        return
    values = {
        (devices.disk_of(Path(one.path)), one.what): one.rate for one in sorted(wanted, key=lambda one: -one.rate)
    }
    for one in gone - wanted:
        if (known := devices.find(Path(one.path))) is not None:  # a disk that is gone limits nothing
            values.setdefault((known, one.what), 0)
    for (device, what), rate in values.items():
        is_v1, path = directories.files("io", v1=(_V1_RATES[what],), v2=("io.max",))
        name = f"{os.major(device)}:{os.minor(device)}"
        control.write(path, f"{name} {rate}" if is_v1 else f"{name} {_V2_RATES[what]}={rate or 'max'}")
