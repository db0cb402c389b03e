"""sshd's own opinion of the configuration that lets the tunnels in."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from agent.errors import InvalidArgument
from agent.setup import sshd
from tests.system.tunnel_lab import Lab, lab

pytestmark = pytest.mark.system
__all__ = ["lab"]


def test_the_system_with_the_drop_in_has_no_problem(lab: Lab) -> None:
    """Debian's configuration with our drop-in is as the tunnels need it."""
    assert lab.ask("problems_with", extra="") == {"problems": []}


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ("AllowUsers root admin", "AllowUsers does not name migrate"),
        ("Match User migrate\n  PermitTTY yes\nMatch all", "permittty is yes, not no"),
        ("Match User migrate\n  DisableForwarding no\nMatch all", "disableforwarding is no, not yes"),
        ("Match User mig*\n  AuthorizedKeysFile .ssh/authorized_keys\nMatch all", "authorizedkeysfile is"),
        ("Match User *\n  TrustedUserCAKeys /etc/other.pub\nMatch all", "trustedusercakeys is /etc/other.pub"),
    ],
)
def test_what_overrules_us_is_found(lab: Lab, extra: str, expected: str) -> None:
    """An earlier line that keeps the tunnels out, or lets the user do more, is named with both values."""
    problems = lab.ask("problems_with", extra=extra)["problems"]
    assert any(expected in problem for problem in problems), problems  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "extra", ["PasswordAuthentication yes", "AllowTcpForwarding yes\nX11Forwarding yes", "PermitTTY yes"]
)
def test_what_does_not_overrule_us(lab: Lab, extra: str) -> None:
    """Global settings are overridden for our user by the Match block."""
    assert lab.ask("problems_with", extra=extra) == {"problems": []}


def test_a_drop_in_that_nobody_reads_is_taken_back(lab: Lab) -> None:
    """Where sshd_config has no Include for the directory, the error says which line to add, and no file is left."""
    answer = lab.ask("drop_in_refused", extra="")
    assert "trustedusercakeys" in str(answer["error"])
    assert "elsewhere.d/*.conf" in str(answer["hint"])
    assert answer["left"] is False


def test_a_broken_configuration_is_told(lab: Lab) -> None:
    """sshd's own complaint reaches whoever installs."""
    answer = lab.ask("drop_in_refused", extra="NoSuchKeyword 1")
    assert "NoSuchKeyword" in str(answer["error"])
    assert answer["left"] is False


def test_accounts(lab: Lab) -> None:
    """The user has dial as shell, no password that could be typed, no home; doing it again changes nothing."""
    passwd = (lab.directory / "etc" / "passwd").read_text()
    line = next(line for line in passwd.splitlines() if line.startswith("migrate:"))
    assert line.endswith(f":/:{lab.directory}/lib/dial")
    shadow = (lab.directory / "etc" / "shadow").read_text()
    assert "\nmigrate:*:" in shadow
    sshd.ensure_user(lab.directory / "lib" / "dial", prefix=lab.directory)
    assert (lab.directory / "etc" / "passwd").read_text() == passwd


def test_dial_is_installed_where_everybody_can_run_it(tmp_path: Path, lab: Lab) -> None:
    """The copy knows its door and runs as nobody; a directory that is closed to him is refused."""
    dial = lab.directory / "lib" / "dial"
    argv = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", str(dial), "-c", "control"]
    done = subprocess.run(argv, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=10)
    assert (done.returncode, done.stderr) == (
        1,
        "dial: no agent answers on /run/migrate/door.sock: No such file or directory\n",
    )
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o700)
    tmp_path.chmod(0o700)
    with pytest.raises(InvalidArgument, match="closed to other users"):
        sshd.install_dial(closed / "lib")
