"""The peer of the benchmark: a container made of util-linux's commands, moved with plain CRIU, tar and ssh.

It stands beside the engine's containers in the same lab, in namespaces of the same kinds (user, pid, mount, network, ipc,
uts), from the same image, on the same bridges. What is timed is `by_hand_move.sh`; everything that can be made before a move
is made before it: the root on both hosts, the veth pair on the target, an ssh connection. What it leaves out: files that the
container wrote, logs, limits, and any way back when a step fails.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import stat
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from agent.setup import criu
from bench import cpu
from migrate.lab import nodes, processes
from migrate.lab.layout import BRIDGE, PREFIX_LENGTH, Lab, LabError

ADDRESS = "10.88.0.200"  # of the lab's subnet, outside of what its coordinator hands out
_MAC = "02:42:0a:58:00:c8"
_IDS_BASE, _IDS_COUNT = 200_000, 65_536
_INDEX = 900_001  # not that of eth0 in the container, or the bridge hears late that the link is up
_SSH_PORT = 2222
_HERE = Path(__file__).resolve().parent
_HOSTS = ("host1", "host2")
_OUR_USER_NAMESPACE = processes.namespace("self", "user")
_START_TIMEOUT_S = 10.0
_MOVE_TIMEOUT_S = 300.0


@dataclass(frozen=True, kw_only=True)
class HandMove:
    """One move. `frozen_s`: from CRIU's network-lock to its post-resume; `criu_s`: what of it CRIU itself took, dump and restore;
    `image_bytes`: what was copied.
    """

    frozen_s: float
    criu_s: float
    total_s: float
    image_bytes: int


class ByHand:
    """One container, where it is, and how it goes to the other host. A `with` block; the mounts go with the lab."""

    def __init__(self, lab: Lab, image: Path, argv: Sequence[str], *, files: str = "") -> None:
        """`files`: a directory in the root that the program writes to; it is copied in each move, in the freeze."""
        self._lab = lab
        self._criu = criu.locate(lab.criu).binary
        self._host, self._pid, self._files = _HOSTS[0], 0, files
        self._helpers: list[subprocess.Popen[str]] = []
        self._directory = Path(tempfile.mkdtemp(prefix=f"migrate-bench-{lab.prefix}-", dir="/var/tmp"))
        self._directory.chmod(0o755)
        self._log = self._directory / "log"
        try:
            cpu.create(lab)
            for host in _HOSTS:
                self._make_root(host, image)
            self._connect()
            self._start(argv)
        except BaseException:  # an interruption too: what was made must go
            self.close()
            raise

    def move(self, target: str) -> HandMove:
        """To the other host. Raises LabError with the words of what failed; the container may be lost then."""
        source = self._host
        for host in _HOSTS:
            self._run(host, "rm -rf /run/hand/images /run/hand/marks /run/hand/pid && mkdir /run/hand/images")
        pair = f"vhand index {_INDEX} type veth peer name phand address {_MAC}"
        self._run(target, f"ip link add {pair} && ip link set vhand addrgenmode none up")
        words = [_HERE / "by_hand_move.sh", self._criu, self._pid, self._root(source), self._root(target), ADDRESS]
        words += [self._files] if self._files else []
        began = time.monotonic()
        self._run(source, " ".join(str(word) for word in words), timeout_s=_MOVE_TIMEOUT_S)
        total_s = time.monotonic() - began
        frozen_s = self._mark_s(target, "post-resume") - self._mark_s(source, "network-lock")
        criu_s = self._mark_s(source, "post-dump") - self._mark_s(source, "network-lock")
        criu_s += self._mark_s(target, "post-resume") - self._mark_s(target, "pre-restore")
        self._host, self._pid = target, int(self._run(target, "cat /run/hand/pid"))
        (cpu.group(self._lab, cpu.HAND_CONTAINER) / "cgroup.procs").write_text(str(self._pid))
        sizes = self._run(target, "find /run/hand/images -type f -printf '%s\\n'").split()
        for host in _HOSTS:
            self._run(host, "rm -rf /run/hand/images")
        return HandMove(frozen_s=frozen_s, criu_s=criu_s, total_s=total_s, image_bytes=sum(int(size) for size in sizes))

    def close(self) -> None:
        """End everything; nothing to do twice."""
        if self._pid and (init := processes.read(self._pid)) is not None:
            processes.send(init, signal.SIGKILL)
        for helper in self._helpers:
            helper.kill()
            helper.wait()
        for host in _HOSTS:
            with contextlib.suppress(LabError):  # the lab, or this one's making, may have failed half-way
                self._run(host, f"umount --lazy /run/hand {self._root(host)}; rmdir /run/hand")
        shutil.rmtree(self._directory, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _root(self, host: str) -> Path:
        return self._directory / host

    def _make_root(self, host: str, image: Path) -> None:
        """The image's files, owned by the ids of the container's user namespace, as a mount of their own."""
        root = self._root(host)
        with tarfile.open(image) as tar:
            tar.extractall(root)
        (root / "old").mkdir()
        for name, minor in (("null", 3), ("zero", 5), ("urandom", 9)):
            os.mknod(root / "dev" / name, 0o666 | stat.S_IFCHR, os.makedev(1, minor))
            (root / "dev" / name).chmod(0o666)
        for path in (root, *root.rglob("*")):
            os.chown(path, _IDS_BASE, _IDS_BASE, follow_symlinks=False)
        self._run(host, f"mount --bind {root} {root} && mount --make-private {root}")
        self._run(host, "mkdir /run/hand && mount -t tmpfs -o mode=755,size=75% by-hand /run/hand")

    def _connect(self) -> None:
        """An sshd on both hosts and, from each to the other, a connection that stays open."""
        directory, sshd = self._directory, shutil.which("sshd", path="/usr/sbin:/usr/local/sbin")
        for name in ("key", "host_key"):
            command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(directory / name)]
            subprocess.run(command, check=True, stdin=subprocess.DEVNULL)
        public = (directory / "host_key.pub").read_text()
        for host, other in (_HOSTS, _HOSTS[::-1]):
            here, there = self._lab.node(host).address, self._lab.node(other).address
            # HOME: a shell started by sshd reads ~/.bashrc, which is none of the benchmark's and may take long.
            (directory / f"{host}.sshd").write_text(
                f"ListenAddress {here}:{_SSH_PORT}\nHostKey {directory}/host_key\nPidFile none\nUsePAM no\n"
                f"AuthorizedKeysFile {directory}/key.pub\nStrictModes no\nPermitRootLogin prohibit-password\n"
                "SetEnv HOME=/run/hand\nLogLevel ERROR\n"
            )
            (directory / f"{host}.known").write_text(f"[{there}]:{_SSH_PORT} {public}")
            (directory / f"{host}.ssh").write_text(
                f"Host target\nHostName {there}\nPort {_SSH_PORT}\nUser root\nIdentityFile {directory}/key\n"
                f"IdentitiesOnly yes\nUserKnownHostsFile {directory}/{host}.known\nStrictHostKeyChecking yes\n"
                "BatchMode yes\nConnectionAttempts 9\nCiphers aes128-gcm@openssh.com\nControlPath /run/hand/ssh\n"
            )
            self._run(host, f"ln -s {directory}/{host}.ssh /run/hand/ssh_config")
            self._helpers.append(self._spawn(host, cpu.HAND, f"exec {sshd} -D -e -f {directory}/{host}.sshd"))
        for host in _HOSTS:
            self._helpers.append(self._spawn(host, cpu.HAND, "exec ssh -F /run/hand/ssh_config -M -N target"))
            check = nodes.command(self._lab, host, ["ssh", "-F", "/run/hand/ssh_config", "-O", "check", "target"])
            self._wait_for(f"ssh from {host}", partial(_succeeds, check))

    def _start(self, argv: Sequence[str]) -> None:
        """On the first host: a user namespace with its map, in it all others, and the veth pair before init goes on."""
        host = self._host
        user = self._spawn(host, cpu.HAND, "exec unshare --user sleep infinity")
        self._helpers.append(user)
        self._wait_for("the user namespace", lambda: processes.namespace(user.pid, "user") != _OUR_USER_NAMESPACE)
        for kind in ("uid", "gid"):
            Path(f"/proc/{user.pid}/{kind}_map").write_text(f"0 {_IDS_BASE} {_IDS_COUNT}\n")
        words = (_HERE / "by_hand_start.sh", self._root(host), *argv)
        shell = f"nsenter --user=/proc/{user.pid}/ns/user unshare --mount --net --pid --ipc --uts --fork"
        starter = self._spawn(host, cpu.HAND_CONTAINER, f"exec {shell} {shlex.join(str(word) for word in words)}")
        self._helpers.append(starter)
        self._wait_for("init", lambda: self._child(starter.pid) != 0)
        self._pid = self._child(starter.pid)
        pair = f"vhand index {_INDEX} type veth peer name eth0 address {_MAC} netns {self._pid}"
        self._run(host, f"ip link add {pair} && ip link set vhand master {BRIDGE} up")
        inside = f"ip link set lo up && ip addr add {ADDRESS}/{PREFIX_LENGTH} dev eth0 && ip link set eth0 up"
        self._run(host, f"nsenter --net=/proc/{self._pid}/ns/net sh -c '{inside}'")
        assert starter.stdin is not None
        starter.stdin.write("\n")
        starter.stdin.close()

    def _child(self, pid: int) -> int:
        return next((each.pid for each in processes.everybody().values() if each.parent == pid), 0)

    def _wait_for(self, what: str, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while not ready():
            if time.monotonic() > deadline:
                log = self._log.read_text()[-2000:]
                raise LabError(f"by hand: {what} is not there after {_START_TIMEOUT_S:.0f} s", detail=log)
            time.sleep(0.02)

    def _command(self, host: str, group: str, script: str) -> list[str]:
        join = f"echo 0 >{cpu.group(self._lab, group)}/cgroup.procs"
        return nodes.command(self._lab, host, ["bash", "-c", f"{join} && {script}"])

    def _spawn(self, host: str, group: str, script: str) -> subprocess.Popen[str]:
        # A session of its own: Ctrl-C is for the benchmark, which ends all of these itself.
        with self._log.open("a") as log:
            return subprocess.Popen(
                self._command(host, group, script),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                text=True,
                start_new_session=True,
            )

    def _run(self, host: str, script: str, timeout_s: float = 30.0) -> str:
        command = self._command(host, cpu.HAND, script)
        done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, check=False)
        if done.returncode:
            raise LabError(f"by hand, on {host}: {script}: status {done.returncode}", detail=done.stderr[-2000:])
        return done.stdout

    def _mark_s(self, host: str, name: str) -> float:
        lines = self._run(host, "cat /run/hand/marks").splitlines()
        return next(int(line.split()[1]) / 1e6 for line in lines if line.split()[0] == name)


def _succeeds(command: Sequence[str]) -> bool:
    return subprocess.run(command, capture_output=True, check=False).returncode == 0
