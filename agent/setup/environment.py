"""The checkout's virtual environment `.venv`, and the command `migrate` on the PATH. Standard library only."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

from agent.errors import Unsupported

PACKAGES = ("agent", "migrate", "protos")
COMMAND = Path("/usr/local/bin/migrate")
_MINIMUM = (3, 11)
_TIMEOUT_S = 900.0


def ensure(checkout: Path, python: Path) -> str:
    """Make `.venv` with `python`, install the project into it, editable, with its tools; "" if all is there.

    A stamp remembers pyproject.toml, the interpreter and the checkout's path: if one of them changes it is done again.
    Raises Unsupported with the output of what failed.
    """
    folder = checkout / ".venv"
    stamp = folder / "migrate-setup.stamp"
    wanted = _fingerprint(checkout, python)
    if stamp.is_file() and stamp.read_text() == wanted and (folder / "bin" / "migrate").exists():
        return ""
    _check_version(python)
    same_base = stamp.is_file() and stamp.read_text().splitlines()[:2] == wanted.splitlines()[:2]
    stamp.unlink(missing_ok=True)
    if not same_base:  # scripts in it name its own path: a copied environment is of no use
        shutil.rmtree(folder, ignore_errors=True)
        _run([str(python), "-m", "venv", str(folder)], "apt-get install python3-venv")
    pip = [str(folder / "bin" / "python"), "-m", "pip", "--quiet", "--disable-pip-version-check", "install"]
    # A path in a .pth file: setuptools' own finder would cost every start of the command line 20 ms.
    editable = ["--config-settings", "editable_mode=compat", "--editable", f"{checkout}[dev]"]
    _run([*pip, *editable], "check that pip reaches its package index, then run this again")
    stamp.write_text(wanted)
    return f"installed the project's Python packages in {folder}"


def compile_sources(checkout: Path) -> None:
    """Bring the bytecode of what the command line imports up to date.

    Python would write it by itself, but not where it may not: for a user who is not the checkout's owner, or with
    PYTHONDONTWRITEBYTECODE, as in many containers and CI jobs. There each `migrate ps` compiled 60 files, a third of its time.
    """
    python, packages = checkout / ".venv" / "bin" / "python", [str(checkout / name) for name in PACKAGES]
    _run([str(python), "-m", "compileall", "-q", *packages], "look at the file that it names")


def link_command(checkout: Path, command: Path = COMMAND) -> str:
    """Point `command` at this checkout's `migrate`, unless something that is not ours lies there."""
    program = checkout / ".venv" / "bin" / "migrate"
    if command.is_symlink():
        target = command.readlink()
        if target == program or target.parts[-3:] != (".venv", "bin", "migrate"):
            return ""
        command.unlink()
    elif command.exists() or not command.parent.is_dir():
        return ""
    command.symlink_to(program)
    return f"{command} -> {program}"


def _fingerprint(checkout: Path, python: Path) -> str:
    """Lines: checkout, interpreter and its build, hash of pyproject.toml."""
    interpreter = f"{python.resolve()} {sys.version if python.samefile(sys.executable) else python.stat().st_mtime_ns}"
    digest = hashlib.sha256((checkout / "pyproject.toml").read_bytes()).hexdigest()
    return f"{checkout.resolve()}\n{' '.join(interpreter.split())}\n{digest}\neditable_mode=compat\n"


def _check_version(python: Path) -> None:
    code = "import sys; print(*sys.version_info[:2])"
    done = subprocess.run([str(python), "-I", "-c", code], capture_output=True, text=True, timeout=60, check=False)
    version = tuple(int(part) for part in done.stdout.split())
    if version < _MINIMUM:
        found = ".".join(map(str, version)) or "none"
        raise Unsupported(
            f"{python} is Python {found}; 3.11 or newer is needed", hint="make setup PYTHON3=/path/to/python3.11"
        )


def _run(argv: list[str], remedy: str) -> None:
    try:
        done = subprocess.run(
            argv, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as exc:
        raise Unsupported(f"{' '.join(argv)}: {exc}", hint=remedy) from exc
    if done.returncode != 0:
        raise Unsupported(f"{' '.join(argv)} failed: {(done.stderr or done.stdout).strip()[-1500:]}", hint=remedy)
