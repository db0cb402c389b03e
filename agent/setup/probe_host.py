"""Probes that only read: kernel, processor, privileges, cgroup hierarchies, programs. Each returns one Capability."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from pathlib import Path

from agent.linux import libseccomp
from agent.linux.process import CAPABILITIES
from agent.setup import criu
from agent.setup.capability import Capability

# Overlays on id-mapped layers exist since 5.19; everything else that is needed is older.
OLDEST_KERNEL = (5, 19)
_NEEDED_CAPABILITIES = (
    "CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FOWNER", "CAP_KILL", "CAP_SETGID", "CAP_SETUID", "CAP_SETPCAP",
    "CAP_NET_ADMIN", "CAP_SYS_CHROOT", "CAP_SYS_PTRACE", "CAP_SYS_ADMIN", "CAP_MKNOD", "CAP_SETFCAP",
    "CAP_CHECKPOINT_RESTORE",
)  # fmt: skip
_CONTROLLERS = ("cpu", "memory", "pids")
# Of x86-64 and aarch64, beyond what every one has. The kernel's other words say nothing that a program would execute.
_INSTRUCTIONS = frozenset(
    {
        "ssse3", "sse4_1", "sse4_2", "sse4a", "popcnt", "movbe", "aes", "vaes", "pclmulqdq", "vpclmulqdq", "fma", "fma4", "xop",
        "f16c", "abm", "bmi1", "bmi2", "adx", "rdrand", "rdseed", "sha_ni", "sha512", "gfni", "fsgsbase", "xsave", "xsavec", "tbm",
        "clflushopt", "clwb", "movdiri", "movdir64b", "rtm", "atomics", "asimdrdm", "asimddp", "sha1", "sha2", "sha3", "pmull",
        "crc32", "lrcpc", "bf16", "i8mm",
    }
)  # fmt: skip
_BRIDGED = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")


def kernel() -> Capability:
    release = platform.release()
    wanted = ".".join(map(str, OLDEST_KERNEL))
    return Capability(
        name="kernel",
        ok=criu.kernel_version(release) >= OLDEST_KERNEL,
        value=release,
        remedy=f"boot Linux {wanted} or newer: overlays on id-mapped layers need it",
        required=True,
    )


def architecture() -> Capability:
    machine = platform.machine()
    return Capability(
        name="architecture",
        ok=machine == "x86_64",
        value=machine,
        remedy="tested on x86_64 only; dirty pages without soft-dirty are tracked there only",
    )


def privileges() -> Capability:
    held = _effective_capabilities()
    lacking = [name for name in _NEEDED_CAPABILITIES if name not in held]
    user = "root" if os.geteuid() == 0 else f"uid {os.geteuid()}"
    return Capability(
        name="privileges",
        ok=os.geteuid() == 0 and not lacking,
        value=user + (f", without {', '.join(lacking)}" if lacking else ", with every capability that is needed"),
        remedy="run the agent as root of the host, outside of any container",
        required=True,
    )


def cap_sys_resource() -> Capability:
    held = "CAP_SYS_RESOURCE" in _effective_capabilities()
    return Capability(
        name="CAP_SYS_RESOURCE",
        ok=held,
        value="held" if held else "not held",
        remedy="what it costs: CRIU dumps processes of other uids only inside a user namespace (containers have one), "
        "and its own page server for lazy pages needs sysctl fs.pipe-max-size=4194304. Give it the capability",
    )


def cgroup() -> Capability:
    v1, v2_mount = cgroup_mounts()
    v2 = _v2_controllers(v2_mount)
    if v2_mount is not None and not v1:
        kind = f"v2 at {v2_mount}"
    elif v2_mount is not None:
        kind = f"v1 hybrid, v2 at {v2_mount}"
    else:
        kind = "v1" if v1 else "none"
    lacking = [name for name in _CONTROLLERS if name not in v1 and name not in v2]
    found = [f"{name} ({'v2' if name in v2 else 'v1'})" for name in _CONTROLLERS if name not in lacking]
    return Capability(
        name="cgroup",
        ok=not lacking and bool(v1 or v2_mount),
        value=f"{kind}; {', '.join(found)}" + (f"; without {', '.join(lacking)}" if lacking else ""),
        remedy="containers run without these limits; boot with the controllers enabled (cgroup_enable=memory)",
    )


def cgroup_mounts() -> tuple[dict[str, Path], Path | None]:
    """Mount point of each v1 controller, and that of the v2 hierarchy or None."""
    v1: dict[str, Path] = {}
    v2: Path | None = None
    for point, kind, options in _mounts():
        if kind == "cgroup2":
            v2 = v2 or point
        elif kind == "cgroup":
            v1.update((option, point) for option in options.split(",") if (point / "cgroup.procs").exists())
    return {name: point for name, point in v1.items() if not name.startswith("name=") and name not in ("rw", "ro")}, v2


def aes() -> Capability:
    words = _processor_words()
    return Capability(
        name="aes",
        ok="aes" in words,
        value="in the processor" if "aes" in words else "not in the processor",
        remedy="bulk data is encrypted in software, several times slower",
    )


def instructions() -> list[str]:
    """Sets of instructions that programs may use where the processors have them, by the kernel's names; sorted."""
    words = _processor_words()
    return sorted(word for word in words if word in _INSTRUCTIONS or word.startswith(("avx", "amx", "sve", "sme")))


def _processor_words() -> list[str]:
    """What the kernel says that the first processor can do."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    found = next((line for line in lines if line.lower().startswith(("flags", "features"))), "")
    return found.partition(":")[2].split()


def ssh() -> Capability:
    client, server = which("ssh"), which("sshd")
    ciphers = _output([client, "-Q", "cipher"]).split() if client else []
    fast = "aes128-gcm@openssh.com" in ciphers
    version = _output([client, "-V"]).strip() if client else ""
    lacking = [
        text
        for text, there in (("ssh", client), ("sshd", server), ("cipher aes128-gcm@openssh.com", fast))
        if not there
    ]
    return Capability(
        name="ssh",
        ok=not lacking,
        value=f"without {', '.join(lacking)}" if lacking else f"{version.split(',')[0]}, aes128-gcm",
        remedy="apt-get install openssh-client openssh-server: every connection between hosts goes through them",
        required=not (client and server),
    )


def programs() -> Capability:
    """What CRIU and the engine start by name. `network` and `nftables` try the first two for real."""
    lacking = [name for name in ("ip", "nft", "tar", "gzip") if which(name) is None]
    return Capability(
        name="programs",
        ok=not lacking,
        value=f"without {', '.join(lacking)}" if lacking else "ip, nft, tar, gzip",
        remedy="apt-get install iproute2 nftables tar gzip",
        required=True,
    )


def bridged_frames() -> Capability:
    """br_netfilter sends routed frames back over the bridge, which sends none out by the port that it came in by. docs/networks.md"""
    try:
        seen = _BRIDGED.read_text().strip() != "0"
    except OSError:
        seen = False  # the kernel has no such module loaded
    return Capability(
        name="bridged-frames",
        ok=not seen,
        value="firewalled: connections through a published port do not outlive a move" if seen else "not firewalled",
        remedy="sysctl net.bridge.bridge-nf-call-iptables=0, unless Kubernetes or Docker on this host needs it",
    )


def run_on_tmpfs(run_dir: Path) -> Capability:
    """CRIU keeps what it learnt of the kernel in /run/criu.kdat, and only if /run is a tmpfs."""
    kind = filesystem_of(Path("/run"))
    ours = filesystem_of(run_dir)
    return Capability(
        name="run-tmpfs",
        ok=kind == "tmpfs" and ours == "tmpfs",
        value=f"/run is {kind}" + ("" if ours == kind else f", {run_dir} is {ours}"),
        remedy="each call of CRIU probes the kernel anew (30 ms), and pages are staged on disk: mount a tmpfs on /run",
    )


def huge_pages() -> Capability:
    path = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    chosen = path.read_text().partition("[")[2].partition("]")[0] if path.exists() else "absent"
    return Capability(
        name="huge-pages",
        ok=chosen in ("always", "madvise"),
        value=chosen,
        remedy=f"memory is filled 2-3 times faster with them: echo madvise > {path}",
    )


def sized_layers() -> Capability:
    control, mkfs = Path("/dev/loop-control"), which("mkfs.ext4")
    lacking = [name for name, there in ((str(control), control.exists()), ("mkfs.ext4", mkfs)) if not there]
    return Capability(
        name="sized-layers",
        ok=not lacking,
        value=f"no {' and no '.join(lacking)}" if lacking else "loop devices and mkfs.ext4",
        remedy="--storage-opt size= needs them: apt-get install e2fsprogs; modprobe loop",
    )


def seccomp() -> Capability:
    """Containers get a filter unless they refuse it, so one that cannot be made is a container that cannot be made."""
    actions = Path("/proc/sys/kernel/seccomp/actions_avail")
    try:
        library = f"libseccomp {libseccomp.version()}"
    except OSError as exc:
        library = exc.strerror or str(exc)
        return Capability(name="seccomp", ok=False, value=library, remedy="apt-get install libseccomp2", required=True)
    return Capability(
        name="seccomp",
        ok=actions.exists(),
        value=library if actions.exists() else f"{library}, and a kernel without CONFIG_SECCOMP_FILTER",
        remedy="boot a kernel with CONFIG_SECCOMP_FILTER",
        required=True,
    )


def bfq() -> Capability:
    offered = [path for path in Path("/sys/block").glob("*/queue/scheduler") if "bfq" in path.read_text()]
    used = [path.parts[3] for path in offered if "[bfq]" in path.read_text()]
    return Capability(
        name="bfq",
        ok=bool(offered),
        value=f"used by {', '.join(used)}" if used else "there, used by no disk" if offered else "no such scheduler",
        remedy="--blkio-weight has an effect only on disks that use it: modprobe bfq; echo bfq > /sys/block/DISK/queue/scheduler",
    )


def filesystem_of(path: Path) -> str:
    """Type of the file system that `path`, or its nearest parent that exists, lies on."""
    while not path.exists():
        path = path.parent
    real = path.resolve()
    best, kind = Path("/"), "unknown"
    for point, fstype, _ in _mounts():
        if real.is_relative_to(point) and len(point.parts) >= len(best.parts):
            best, kind = point, fstype  # a later line covers an earlier one
    return kind


def which(program: str) -> str | None:
    """Like shutil.which, but finds sbin programs whatever the caller's PATH."""
    return shutil.which(program) or shutil.which(program, path="/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin")


def _mounts() -> list[tuple[Path, str, str]]:
    """(mount point, type, options of the file system) of this mount namespace, in mount order."""
    found = []
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as lines:
        for line in lines:
            left, _, right = line.partition(" - ")
            kind, _, options = right.split(" ", 2)
            found.append((Path(left.split(" ")[4]), kind, options.strip()))
    return found


def _v2_controllers(mount: Path | None) -> list[str]:
    try:
        return (mount / "cgroup.controllers").read_text().split() if mount else []
    except OSError:
        return []


def _effective_capabilities() -> set[str]:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            bits = int(line.split()[1], 16)
            return {name for number, name in enumerate(CAPABILITIES) if bits >> number & 1}
    return set()


def _output(argv: list[str]) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
    return done.stdout or done.stderr
