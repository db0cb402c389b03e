"""Everything that is written below the lab's directory before its nodes start: keys, configuration, accounts, plans.

Keys are made once and kept: a lab that was taken down with --keep comes up with the same certificate authority and
host keys.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from pathlib import Path

import migrate
from agent.setup import sshd
from migrate.lab import cgroups
from migrate.lab.layout import (
    BRIDGE,
    CONTAINER_RANGE,
    SSH_PORT,
    SUBNET,
    UPLINK,
    Lab,
    Node,
    Role,
)
from migrate.lab.plan import NodePlan, Program, plan_file
from migrate.tunnel.pki import CertificateAuthority

_SYSTEM_SSHD = """\
Include /etc/ssh/sshd_config.d/*.conf
Port {port}
ListenAddress {address}
HostKey /etc/ssh/{key}
PidFile none
PermitRootLogin prohibit-password
AuthorizedKeysFile /etc/ssh/operator_keys
UsePAM no
UseDNS no
LogLevel VERBOSE
"""
# As a node sees them; its /etc is an overlay over the machine's, whose upper directory is NAME/etc.
ETC = Path("/etc/migrate")
STATE = Path("/var/lib/migrate")
RUN = Path("/run/migrate")
HOST_KEY = "ssh_host_ed25519_key"
USER = sshd.USER
MADE_BY_LAB = (
    STATE / ".mount-point-of-migrate-lab"
)  # says that the machine has no agent of its own and the lab made the directory
SOURCE = Path(migrate.__file__).resolve().parent.parent


def write(lab: Lab) -> None:
    """Make or refresh all files. Nothing of the lab may be running. Raises LabError or OSError."""
    lab.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    lab.state_dir.chmod(0o700)
    if not STATE.exists():
        STATE.mkdir(mode=0o755)
        MADE_BY_LAB.touch()
    lab.save()
    for node in lab.nodes:
        if node.supervised:
            _node(lab, node)
    for node in lab.nodes:
        if node.role is Role.BARE:
            _bare(lab, node)
    hosts = [node for node in lab.nodes if node.role is Role.HOST]
    host_keys = {node.name: sshd.ensure_host_key(etc(lab, node) / HOST_KEY) for node in hosts}
    ca = _certificate_authority(lab)
    for node in hosts:
        _host(lab, node, ca)
    _controller(lab, hosts, host_keys)


def etc(lab: Lab, node: Node) -> Path:
    """What the node sees as /etc/migrate."""
    return lab.node_dir(node.name) / "etc/migrate"


def _node(lab: Lab, node: Node) -> None:
    directory = lab.node_dir(node.name)
    for name, mode in (
        ("etc", 0o755),
        ("etc.work", 0o755),
        ("etc/migrate", 0o755),
        ("var", 0o711),
        ("log", 0o700),
        ("run", 0o755),
    ):
        (directory / name).mkdir(parents=True, exist_ok=True)
        (directory / name).chmod(mode)
    (directory / "etc/hostname").write_text(f"{node.name}\n")
    lines = ["127.0.0.1 localhost", *(f"{each.address} {each.name}" for each in lab.nodes if each.address)]
    (directory / "etc/hosts").write_text("".join(f"{line}\n" for line in lines))


def _accounts(lab: Lab, node: Node, shell: Path) -> None:
    """Copies of the machine's accounts, plus the user that sshd lets in."""
    directory = lab.node_dir(node.name) / "etc"
    for name in ("passwd", "group", "shadow", "gshadow"):
        machine = Path("/etc", name)
        if machine.exists():
            shutil.copy2(machine, directory / name)
            os.chown(directory / name, machine.stat().st_uid, machine.stat().st_gid)
    sshd.ensure_user(shell, user=USER, prefix=directory.parent)


def _certificate_authority(lab: Lab) -> str:
    """The fleet's CA in the coordinator's directory, made if there is none; returns its public key."""
    authority = CertificateAuthority.load_or_create(lab.node_dir("controller") / "var")
    return authority.public_openssh() + "\n"


def _host(lab: Lab, node: Node, ca: str) -> None:
    directory = etc(lab, node)
    (directory / "ca.pub").write_text(ca)
    dial = ETC / "dial"
    shutil.copy(SOURCE / "agent/dial.py", directory / "dial")
    (directory / "dial").chmod(0o755)
    _accounts(lab, node, dial)
    (directory / "agent.toml").write_text(
        _toml(
            host=node.name,
            bridge=BRIDGE,
            uplink=UPLINK,
            cgroup_parent=str(lab.container_cgroup(node.name)),
            criu=lab.criu,
            group=USER,
            build_gateway=node.address,
        )
    )
    (directory / "sshd_config").write_text(
        sshd.config_text(
            port=SSH_PORT,
            listen=[node.address],
            host_key=ETC / HOST_KEY,
            pid_file=Path("none"),  # it runs in the foreground
            ca=ETC / "ca.pub",
            user=USER,
        )
    )
    programs: tuple[Program, ...] = (
        Program(name="sshd", argv=tuple(sshd.server_command(ETC / "sshd_config"))),
        Program(name="agent", argv=(sys.executable, "-m", "agent", "--config", str(ETC / "agent.toml"))),
    )
    if shutil.which("slirp4netns"):
        way_out = Path(__file__).with_name("way_out.sh")
        programs += (Program(name="way-out", argv=("/bin/sh", str(way_out), SUBNET), outside=True),)
    _plan(lab, node, binds=((lab.node_dir(node.name) / "var", STATE),), programs=programs)


def _bare(lab: Lab, node: Node) -> None:
    """An sshd as distributions configure it, its operator's key, and empty folders where an installation goes."""
    directory = lab.node_dir(node.name)
    operator = sshd.ensure_host_key(lab.operator_key)
    ssh = directory / "etc/ssh"
    ssh.mkdir(exist_ok=True)
    sshd.ensure_host_key(ssh / HOST_KEY)
    (ssh / "operator_keys").write_text(f"{operator}\n")
    (ssh / "sshd_config").write_text(_SYSTEM_SSHD.format(address=node.address, port=SSH_PORT, key=HOST_KEY))
    for name in ("passwd", "group"):
        shutil.copy2(Path("/etc", name), directory / "etc" / name)
    (directory / "etc/shadow").write_text("root:*:20000:0:99999:7:::\n")  # "!" would be a closed account
    (directory / "etc/shadow").chmod(0o600)
    binds = []
    for name, target in (
        ("var", STATE),
        ("opt", Path("/opt/migrate")),
        ("lib", sshd.DIAL_DIR),
        ("bin", Path("/usr/local/bin")),
    ):
        (directory / name).mkdir(mode=0o755, exist_ok=True)
        target.mkdir(mode=0o755, parents=True, exist_ok=True)
        binds.append((directory / name, target))
    server = (*sshd.server_command(Path("/etc/ssh/sshd_config")),)
    _plan(lab, node, binds=tuple(binds), programs=(Program(name="sshd", argv=server),))


def _controller(lab: Lab, hosts: list[Node], host_keys: dict[str, str]) -> None:
    node = lab.node("controller")
    lines = [
        _toml(state_dir=str(STATE), socket=str(RUN / "coordinator.sock"), group=""),  # root only
        "[fleet]",
        _toml(name=lab.prefix, subnet=SUBNET, container_range=CONTAINER_RANGE, gateway=""),
    ]
    for host in hosts:
        lines += [
            "[[hosts]]",
            _toml(name=host.name, address=host.address, port=SSH_PORT, user=USER, host_keys=[host_keys[host.name]]),
        ]
    (etc(lab, node) / "coordinator.toml").write_text("\n".join(lines))
    command = (sys.executable, "-m", "migrate.coordinator", "--config", str(ETC / "coordinator.toml"))
    directory = lab.node_dir(node.name)
    _plan(
        lab,
        node,
        binds=((directory / "var", STATE), (directory / "run", RUN)),
        programs=(Program(name="coordinator", argv=command),),
    )


def _plan(lab: Lab, node: Node, *, binds: tuple[tuple[Path, Path], ...], programs: tuple[Program, ...]) -> None:
    unified = [hierarchy.path for hierarchy in cgroups.hierarchies() if hierarchy.version == 2]
    NodePlan(
        name=node.name,
        directory=str(lab.node_dir(node.name)),
        binds=tuple((str(source), str(target)) for source, target in binds),
        programs=programs,
        environment={
            "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "LANG": "C.UTF-8",
            "PYTHONPATH": str(SOURCE),
            "PYTHONUNBUFFERED": "1",
        },
        cgroup=str(unified[0] / lab.node_cgroup(node.name)) if unified else "",
    ).save(plan_file(lab.node_dir(node.name)))


def _toml(**values: str | int | list[str]) -> str:
    """Key = value lines: JSON's strings, numbers and lists of strings are TOML's."""
    return "".join(f"{name} = {json.dumps(value)}\n" for name, value in values.items())
