"""Debian packages: what is missing, and that installing starts no daemon."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from agent.setup import debian

pytestmark = pytest.mark.unit

THEIRS = "#!/bin/sh\n# of the administrator\nexit 104\n"


def test_missing_names_only_what_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is installed is not asked for again; what was removed, or is unknown to dpkg, is."""
    dpkg = tmp_path / "dpkg-query"
    dpkg.write_text("#!/bin/sh\necho 'tar installed'; echo 'nftables config-files'; exit 1\n")
    dpkg.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    assert debian.missing(["tar", "nftables", "unknown"]) == ["nftables", "unknown"]


def test_nothing_starts_while_packages_are_installed(tmp_path: Path) -> None:
    """During the installation the policy denies every start; afterwards there is no policy, as before."""
    policy = tmp_path / "policy-rc.d"
    with debian.no_daemon_starts(policy):
        assert subprocess.run([str(policy), "ssh", "start"]).returncode == 101
    assert not policy.exists()


def test_policy_of_the_administrator_comes_back(tmp_path: Path) -> None:
    """A policy that was there before has its text and mode again, also when the installation fails."""
    policy = tmp_path / "policy-rc.d"
    policy.write_text(THEIRS)
    policy.chmod(0o750)
    with pytest.raises(RuntimeError, match="apt"), debian.no_daemon_starts(policy):
        assert policy.read_text() != THEIRS
        raise RuntimeError("apt")
    assert policy.read_text() == THEIRS
    assert policy.stat().st_mode & 0o777 == 0o750
    assert list(tmp_path.iterdir()) == [policy]


def test_policy_comes_back_after_a_crash(tmp_path: Path) -> None:
    """Killed during an installation, the next one finds the administrator's policy and not ours to put back."""
    policy = tmp_path / "policy-rc.d"
    policy.write_text(THEIRS)
    killed = debian.no_daemon_starts(policy)
    killed.__enter__()
    with debian.no_daemon_starts(policy):
        pass
    assert policy.read_text() == THEIRS
    assert list(tmp_path.iterdir()) == [policy]
