"""A disk of its own for each node of a lab, so that a full one hurts nobody else: a file system in a sparse file, mounted where the node
keeps its things.
"""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

from migrate.lab.layout import Lab

HOST_MB, CONTROLLER_MB = 2000, 64


def make(lab: Lab, directory: Path) -> None:
    """Where nothing of the lab is there yet."""
    for node in lab.nodes:
        if not node.supervised:
            continue
        file, place = directory / f"{node.name}.img", directory / node.name
        size = CONTROLLER_MB if node.name == "controller" else HOST_MB
        place.mkdir()
        for command in (
            ["truncate", f"--size={size}M", str(file)],
            ["mkfs.ext4", "-q", "-m", "0", str(file)],
            ["mount", "-o", "loop", str(file), str(place)],
        ):
            subprocess.run(command, check=True, capture_output=True)
        (place / "lost+found").rmdir()
        lab.node_dir(node.name).mkdir(mode=0o755, parents=True)
        (lab.node_dir(node.name) / "var").symlink_to(place)  # `lab up` unmounts what it finds below its directory


@contextlib.contextmanager
def directory(prefix: str) -> Iterator[Path]:
    """For the files and their mount points, which go at the end; a lab that is kept runs on what nobody finds any more."""
    made = Path("/var/tmp") / f"migrate-lab-{prefix}-disks"
    made.mkdir(mode=0o700, exist_ok=True)
    try:
        yield made
    finally:
        for file in made.glob("*.img"):
            place = file.with_suffix("")
            subprocess.run(["umount", "--lazy", str(place)], check=False, capture_output=True)  # one that came so far
            place.rmdir()
            file.unlink()
        made.rmdir()
