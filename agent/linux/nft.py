"""nftables, through its own program: one script is one transaction, all of it or nothing. Standard library only."""

from __future__ import annotations

import errno
import subprocess

PROGRAM = "nft"
LIMIT_S = 120.0  # the first call of a boot loads kernel modules: 30 s were not enough on a busy emulated machine


def table(family: str, name: str) -> str:
    """As nft lists it; "" where there is none, or no nft."""
    try:
        command = [PROGRAM, "list", "table", family, name]
        done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""


def apply(script: str) -> None:
    """Raises OSError, and nothing of the script is in force: ENOENT where nft is not installed, else with nft's own words."""
    command = [PROGRAM, "-f", "-"]
    try:
        done = subprocess.run(command, input=script, capture_output=True, text=True, timeout=LIMIT_S, check=False)
    except subprocess.TimeoutExpired as exc:
        raise OSError(errno.ETIMEDOUT, f"nft did not end in {LIMIT_S:g} s") from exc
    if done.returncode:
        raise OSError(errno.EINVAL, f"nft: {done.stderr.strip() or f'exit status {done.returncode}'}")
