"""An installation that was carried here, made one of this host's: `python3 -m agent.setup.release --id ID FOLDER`, as root.

    /opt/migrate/releases/ID/    bin/python, pyvenv.cfg, lib/python3.X/site-packages: a virtual environment
    /opt/migrate/app             a link to the newest; /usr/local/bin/migrate leads there

FOLDER holds `site` (packages), and may hold `criu` (a bundle) and `withheld` (*.so); it becomes the release by a rename, so
what is named so is whole. A release stays for as long as some process runs from it: monitors of containers outlive upgrades.
The host needs no pip, no ensurepip, no network and no compiler. Standard library only; run by the system's Python.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from agent.errors import AgentError, Unsupported
from agent.setup import criu_bundle, withheld

ROOT = Path("/opt/migrate")
COMMAND = Path("/usr/local/bin/migrate")
_OURS = ("agent", "migrate", "protos")
_MODULES = {"migrate": "migrate", "migrate-agent": "agent", "migrate-coordinator": "migrate.coordinator"}


def place(folder: Path, release: str, *, root: Path = ROOT, command: Path = COMMAND) -> list[str]:
    """Returns a line for each thing that was done. Raises AgentError."""
    # Before the packages that this very program is one of go to their place.
    did = [line for line in (_criu(folder / "criu"), _withheld(folder / "withheld")) if line]
    home = root / "releases" / release
    if not home.exists():
        _environment(folder, home)
        did.append(f"installed in {home}")
    did += [line for line in (_link(home, root / "app"), _link_command(root / "app", command)) if line]
    gone = prune(root, keep=release)
    if gone:
        did.append(f"removed what nothing runs from any more: {' '.join(gone)}")
    shutil.rmtree(folder, ignore_errors=True)
    return did


def prune(root: Path, *, keep: str) -> list[str]:
    """Remove other releases that no process runs from, and what broken installations left; returns their names."""
    used = _used()
    gone = []
    for path in sorted((root / "releases").iterdir()):
        if path.name in (keep, f".{keep}") or any(text.startswith(f"{path}/") for text in used):
            continue
        gone.append(path.name)
        shutil.rmtree(path, ignore_errors=True)
    return gone


def _environment(folder: Path, home: Path) -> None:
    """A virtual environment is a link to its Python and a file that names the folder which that is in."""
    version = "{}.{}".format(*sys.version_info)
    made = folder / "release"
    shutil.rmtree(made, ignore_errors=True)
    library = made / "lib" / f"python{version}"
    library.mkdir(parents=True)
    (made / "bin").mkdir()
    python = Path(sys.executable)
    (made / "bin/python").symlink_to(python)
    (made / "pyvenv.cfg").write_text(
        f"home = {python.parent}\ninclude-system-site-packages = false\nversion = {version}\n"
    )
    (folder / "site").rename(library / "site-packages")
    for name, module in _MODULES.items():
        script = made / "bin" / name
        script.write_text(f'#!/bin/sh\nexec {home}/bin/python -m {module} "$@"\n')
        script.chmod(0o755)
    # Compiled now, once: else each monitor and probe, started without a cache, would compile anew until root has run it.
    packages = [str(library / "site-packages" / name) for name in _OURS]
    prefix = ["-s", str(made), "-p", str(home)]
    _run([str(made / "bin/python"), "-m", "compileall", "-q", *prefix, *packages])
    home.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    made.rename(home)


def _criu(carried: Path) -> str:
    """Use the host's own where it will do; else what was carried."""
    if not carried.is_dir():
        return criu_bundle.ensure()
    return criu_bundle.ensure(carried=carried)


def _withheld(carried: Path) -> str:
    """The compiled library of this version; a host that already has it, or can compile it, needs none."""
    source = carried / withheld.path().name
    if withheld.locate() is None and source.is_file():
        withheld.DIRECTORY.mkdir(mode=0o755, parents=True, exist_ok=True)
        beside = withheld.path().with_suffix(f".{os.getpid()}")
        shutil.copyfile(source, beside)
        beside.chmod(0o644)
        beside.rename(withheld.path())
        return f"{withheld.path()} was carried along"
    return withheld.ensure()


def _link(home: Path, app: Path) -> str:
    if app.is_symlink() and app.readlink() == home:
        return ""
    if app.is_dir() and not app.is_symlink():
        return f"{app} was installed by hand and stays, unused: remove it when no container runs from it any more"
    beside = app.with_name(f".app.{os.getpid()}")
    beside.symlink_to(home)
    beside.replace(app)
    return f"{app} -> {home}"


def _link_command(app: Path, command: Path) -> str:
    """Unless something that is not ours lies there."""
    target = app / "bin/migrate"
    if command.is_symlink() and command.readlink() == target:
        return ""
    if command.is_symlink() or command.exists() or not command.parent.is_dir():
        return f"{command} is somebody else's and stays"
    command.symlink_to(target)
    return f"{command} -> {target}"


def _used() -> set[str]:
    """Paths that processes of this host were started with, or run from."""
    found: set[str] = set()
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                found.update((process / "cmdline").read_bytes().decode(errors="replace").split("\0"))
                found.update(line.partition("/")[2] and f"/{line.partition('/')[2]}" for line in _maps(process))
            except OSError:
                continue  # it has ended
    return found


def _maps(process: Path) -> list[str]:
    return [line for line in (process / "maps").read_text(errors="replace").splitlines() if "/releases/" in line]


def _run(argv: Sequence[str]) -> None:
    done = subprocess.run(list(argv), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Unsupported(f"{' '.join(argv)}: {(done.stderr or done.stdout).strip()[-500:]}")


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python3 -m agent.setup.release", description="install what was carried here")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--id", required=True)
    arguments = parser.parse_args(argv)
    try:
        for line in place(arguments.folder, arguments.id):
            sys.stdout.write(f"{line}\n")
    except (AgentError, OSError) as exc:
        message, hint = (exc.message, exc.hint) if isinstance(exc, AgentError) else (str(exc), "")
        sys.stderr.write(f"error: {message}\n" + (f"hint: {hint}\n" if hint else ""))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
