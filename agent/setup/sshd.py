"""sshd as the way into a host: its configuration, the user that comes in, the dial that he gets. Standard library only.

Two ways: an sshd of our own (`config_text`, the lab), or the system's with a file in sshd_config.d (`install_drop_in`).
Both trust the fleet's authority for one user only, who has no password, no key file, no home and no shell but dial.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
from collections.abc import Sequence
from pathlib import Path

from agent import dial
from agent.errors import AgentError, InvalidArgument, Unsupported

USER = "migrate"  # and the name of his group
DIAL_DIR = Path("/usr/lib/migrate")
DOOR = Path(dial.DOOR)
CA_PUBLIC = Path("/etc/migrate/ca.pub")
SYSTEM_CONFIG = Path("/etc/ssh/sshd_config")
DROP_IN = Path("/etc/ssh/sshd_config.d/60-migrate.conf")
PYTHON = Path("/usr/bin/python3")  # of dial's first line
CIPHERS = "aes128-gcm@openssh.com,aes256-gcm@openssh.com,chacha20-poly1305@openssh.com"

# What `sshd -T` must say about our user, whatever else the host's own configuration says.
_EFFECTIVE = {
    "pubkeyauthentication": "yes",
    "passwordauthentication": "no",
    "kbdinteractiveauthentication": "no",
    "authorizedkeysfile": "none",
    "disableforwarding": "yes",
    "permittty": "no",
    "permituserrc": "no",
}

_USER_RULES = """\
AuthenticationMethods publickey
AuthorizedKeysFile none
PubkeyAuthentication yes
PasswordAuthentication no
KbdInteractiveAuthentication no
HostbasedAuthentication no
DisableForwarding yes
PermitTTY no
PermitUserRC no
PermitTunnel no
MaxSessions 64
ClientAliveInterval 15
ClientAliveCountMax 4
"""


def config_text(
    *, port: int, listen: Sequence[str], host_key: Path, pid_file: Path, ca: Path = CA_PUBLIC, user: str = USER
) -> str:
    """A whole sshd_config that lets in `user` with a certificate of `ca`, and nobody else."""
    lines = [f"Port {port}", *(f"ListenAddress {address}" for address in listen)]
    lines += [f"HostKey {host_key}", f"PidFile {pid_file}", f"TrustedUserCAKeys {ca}", f"AllowUsers {user}"]
    return "\n".join(lines) + (
        f"""
PermitRootLogin no
UsePAM no
UseDNS no
PrintMotd no
PrintLastLog no
PermitUserEnvironment no
LoginGraceTime 20
MaxStartups 100:30:200
Ciphers {CIPHERS}
Compression no
LogLevel VERBOSE
"""
        + _USER_RULES
    )


def drop_in_text(*, ca: Path = CA_PUBLIC, user: str = USER) -> str:
    """A file for sshd_config.d of the system's sshd. The authority counts for `user` alone: it cannot sign for root."""
    rules = "".join(f"    {line}\n" for line in _USER_RULES.splitlines())
    # "Match all" at the end: what follows in a file that includes this one must not fall under our Match.
    return (
        f"# Written by migrate: the fleet's tunnels.\nMatch User {user}\n    TrustedUserCAKeys {ca}\n{rules}Match all\n"
    )


def install_dial(directory: Path = DIAL_DIR, *, door: Path = DOOR) -> Path:
    """A copy of agent/dial.py that knows `door`, as an executable that every user can read. Returns its path.

    A copy because the checkout may be where the user cannot read, and because he must not depend on it.
    """
    if not os.access(PYTHON, os.X_OK):
        raise Unsupported(f"{PYTHON} is missing: dial runs on it", hint="install the distribution's python3")
    source = Path(dial.__file__).read_text()
    assignment = f'DOOR = "{dial.DOOR}"\n'
    if source.count(assignment) != 1:
        raise AgentError(f"{dial.__file__} does not have exactly one line {assignment!r}")
    if not str(door).isprintable() or '"' in str(door) or "\\" in str(door):
        raise InvalidArgument(f"{str(door)!r} is no path for a socket")
    directory.mkdir(mode=0o755, parents=True, exist_ok=True)
    path = directory / "dial"
    _write(path, source.replace(assignment, f'DOOR = "{door}"\n'), 0o755)
    for parent in (path, *path.resolve().parents):
        if not parent.stat().st_mode & stat.S_IXOTH:
            raise InvalidArgument(f"{path}: {parent} is closed to other users, so sshd's user could not run it")
    return path


def ensure_user(shell: Path, *, user: str = USER, prefix: Path | None = None) -> None:
    """The system user and group `user` with `shell` (dial) and no password. Idempotent.

    `prefix`: work on prefix/etc/{passwd,group,shadow} instead of the system's files; the lab gives each host copies.
    """
    where = ["--prefix", str(prefix)] if prefix else []
    root = prefix or Path("/")
    if user not in _names(root / "etc/group"):
        _run(["groupadd", *where, "--system", user])
    if user in _names(root / "etc/passwd"):
        _run(["usermod", *where, "--shell", str(shell), "--home", "/", user])
        return
    # "*", not "!": without PAM sshd takes a locked account for a closed one, even with a good certificate.
    account = [
        "--system",
        "--gid",
        user,
        "--no-create-home",
        "--home-dir",
        "/",
        "--shell",
        str(shell),
        "--password",
        "*",
    ]
    _run(["useradd", *where, *account, "--comment", "tunnels of migrate", user])


def remove_user(user: str = USER) -> bool:
    """The opposite of `ensure_user`; returns whether there was one."""
    if user not in _names(Path("/etc/passwd")):
        return False
    _run(["userdel", "--force", user])  # a tunnel may still be open
    return True


def ensure_host_key(path: Path) -> str:
    """The ed25519 host key at `path` (0600), made if missing. Returns its public line, without comment."""
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        _run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", str(path)])
    return " ".join(path.with_name(path.name + ".pub").read_text().split()[:2])


def host_keys(directory: Path = Path("/etc/ssh")) -> list[str]:
    """Public lines of the system sshd's host keys: what the coordinator pins for this host."""
    return [" ".join(path.read_text().split()[:2]) for path in sorted(directory.glob("ssh_host_*_key.pub"))]


def server_command(config: Path) -> list[str]:
    """argv of an sshd in the foreground that logs to stderr. Makes /run/sshd, which it insists on."""
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    return [_sshd(), "-D", "-e", "-f", str(config)]


def install_drop_in(
    ca_public: str, *, ca: Path = CA_PUBLIC, drop_in: Path = DROP_IN, config: Path = SYSTEM_CONFIG
) -> None:
    """Write the authority's public line and the drop-in; sshd must be reloaded afterwards, which is the caller's.

    Raises AgentError, with the old drop-in back, when sshd does not take the configuration or some other part of it
    overrules what our user needs.
    """
    ca.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    _write(ca, ca_public.strip() + "\n", 0o644)
    before = drop_in.read_text() if drop_in.exists() else None
    drop_in.parent.mkdir(mode=0o755, exist_ok=True)
    _write(drop_in, drop_in_text(ca=ca), 0o644)
    try:
        wrong = problems(ca=ca, config=config)
    except AgentError as exc:
        wrong = [exc.message]
    if wrong:
        if before is None:
            drop_in.unlink()
        else:
            _write(drop_in, before, 0o644)
        raise AgentError(
            f"sshd would not let the tunnels in: {'; '.join(wrong)}",
            code="setup.sshd",
            hint=f"repair {config}; it must have the line: Include {drop_in.parent}/*.conf",
            touched="undone",
        )


def trust(authorities: Sequence[str], *, ca: Path = CA_PUBLIC) -> None:
    """These and no others; sshd reads the file at each login. Raises InvalidArgument for what is no public key."""
    for line in authorities:
        if not re.fullmatch(r"ssh-ed25519 [A-Za-z0-9+/]+={0,2}", line):
            raise InvalidArgument(f"not a public key of the form 'ssh-ed25519 AAAA...': {line[:60]!r}")
    _write(ca, "".join(f"{line}\n" for line in authorities), 0o644)


def problems(*, ca: Path = CA_PUBLIC, config: Path = SYSTEM_CONFIG, user: str = USER) -> list[str]:
    """What in the configuration, as sshd itself understands it, keeps the tunnels out or lets `user` do more.

    Asks `sshd -T`, so needs root: it reads the host keys. AgentError if sshd cannot read the configuration.
    """
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    output = _run([_sshd(), "-T", "-f", str(config), "-C", f"user={user},host=peer,addr=192.0.2.1"])
    effective: dict[str, list[str]] = {}
    for line in output.splitlines():
        name, _, value = line.partition(" ")
        effective.setdefault(name, []).append(value)
    found = []
    for name, wanted in {**_EFFECTIVE, "trustedusercakeys": str(ca)}.items():
        values = effective.get(name, ["(not set)"])
        if values != [wanted]:
            found.append(f"{name} is {' '.join(values)}, not {wanted}")
    allowed = effective.get("allowusers", [])
    if allowed and not any(user in line.split() for line in allowed):
        found.append(f"AllowUsers does not name {user}")
    return found


# ---------------------------------------------------------------- details


def _sshd() -> str:
    """An absolute path: sshd starts itself anew for each connection."""
    found = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin:/sbin")
    if found is None:
        raise Unsupported("sshd is missing", hint="install openssh-server")
    return str(Path(found).resolve())


def _names(path: Path) -> set[str]:
    return {line.partition(":")[0] for line in path.read_text().splitlines()}


def _run(argv: list[str]) -> str:
    environment = {**os.environ, "PATH": f"{os.environ.get('PATH', '/usr/bin:/bin')}:/usr/sbin:/sbin"}
    try:
        done = subprocess.run(
            argv, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=30
        )
    except FileNotFoundError as exc:
        raise Unsupported(f"{argv[0]} is missing", hint="install the packages passwd and openssh-client") from exc
    if done.returncode != 0:
        raise AgentError(f"{' '.join(argv)} failed: {done.stderr.strip()}", code="setup.sshd", touched="something")
    return done.stdout


def _write(path: Path, text: str, mode: int) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("w") as file:
        os.fchmod(file.fileno(), mode)
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    directory = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)
