"""Build a self-contained installation of migrate for hosts that reach no package index.

    artifact.py OUTPUT.tar [--python 3.13]

The tar holds `packages/` (the project and what it needs at run time, for x86-64 and one version of Python, as it lies in
site-packages) and `install`. Unpacked here and not on the host, which then needs no pip and no minutes of it.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tarfile
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
INSTALL = Path(__file__).with_name("install")
PACKAGED = ("agent", "migrate", "protos")
# Wheels name the oldest glibc they run on: 2.36 is Debian 12's.
PLATFORMS = [f"manylinux_2_{minor}_x86_64" for minor in range(36, 16, -1)] + ["manylinux2014_x86_64"]


def build(output: Path, python: str) -> None:
    """Write the tar; replaces one that is there. Needs pip and a package index."""
    with tempfile.TemporaryDirectory(prefix="migrate-artifact-") as scratch_name:
        scratch = Path(scratch_name)
        packages = scratch / "packages"
        dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
        platforms = [word for platform in PLATFORMS for word in ("--platform", platform)]
        target = ["--python-version", python, "--implementation", "cp", *platforms, "--target", str(packages)]
        pip(scratch, "install", "--only-binary=:all:", "--no-compile", *target, *dependencies)
        shutil.rmtree(packages / "bin", ignore_errors=True)  # commands that name this machine's Python
        pip(
            scratch,
            "install",
            "--no-deps",
            "--no-compile",
            "--target",
            str(scratch / "ours"),
            str(copy_of_sources(scratch / "source")),
        )
        for path in (scratch / "ours").iterdir():
            if path.name != "bin":
                path.rename(packages / path.name)
        (scratch / "python-version").write_text(f"{python}\n")
        with tarfile.open(output, "w:gz", compresslevel=1) as tar:
            tar.add(packages, "packages")
            tar.add(scratch / "python-version", "python-version")
            tar.add(INSTALL, "install")


def copy_of_sources(target: Path) -> Path:
    """A clean tree to build from: building in the checkout would pick up what an older build left there."""
    for name in PACKAGED:
        shutil.copytree(ROOT / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md"):
        if (ROOT / name).is_file():
            shutil.copy(ROOT / name, target)
    return target


def pip(folder: Path, *arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "pip", "--quiet", *arguments], cwd=folder, check=True)


def main() -> int:
    parser = argparse.ArgumentParser(description="build an installation for hosts without a package index")
    parser.add_argument("output", type=Path)
    parser.add_argument("--python", default="3.13", help="version of the hosts' Python (default: 3.13, Debian 13's)")
    args = parser.parse_args()
    build(args.output.resolve(), args.python)
    print(f"{args.output}: {args.output.stat().st_size / 1e6:.0f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
