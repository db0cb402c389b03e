"""The library that keeps a container's large memory out of CRIU's sight in a dump: agent/criu/withheld.c, compiled on this host.

It goes to /opt/migrate/withheld/HASH.so, HASH being that of its source, so that agents of several versions each find their own. Any C
compiler will do, the 0.3 MB of `tcc` too. A host without one still moves containers, but frozen for longer: CRIU then walks through all
of their memory. Standard library only.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[1] / "criu" / "withheld.c"
DIRECTORY = Path("/opt/migrate/withheld")
COMPILERS = ("cc", "gcc", "clang", "tcc")
_TIMEOUT_S = 60.0


def path(directory: Path = DIRECTORY) -> Path:
    """Where the library of this version is, or would be."""
    return directory / f"{hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]}.so"


def locate(directory: Path = DIRECTORY) -> Path | None:
    """The compiled library, None where it was not compiled."""
    library = path(directory)
    return library if library.is_file() else None


def ensure(directory: Path = DIRECTORY) -> str:
    """Compile it if it is missing; say what was done, "" for nothing. A host that cannot is told so, and does without."""
    library = path(directory)
    if library.is_file():
        return ""
    said = "there is no C compiler"
    for compiler in filter(shutil.which, COMPILERS):
        said = _compile(compiler, library)
        if not said:
            return f"compiled {library} with {compiler}"
    return f"moves freeze for longer here, by some 0.3 s for each GB, for {said}: apt-get install tcc, and again"


def _compile(compiler: str, library: Path) -> str:
    """ "" or the compiler's complaint. Built beside its place and renamed: no half of it is ever loaded."""
    library.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    beside = library.with_suffix(f".{os.getpid()}")
    argv = [compiler, "-shared", "-fPIC", "-O2", "-nostdlib", "-o", str(beside), str(SOURCE)]
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
        if done.returncode == 0:
            beside.chmod(0o644)
            beside.rename(library)
            return ""
        return f"{compiler} says: {(done.stderr or done.stdout).strip()[-300:]}"
    except (OSError, subprocess.TimeoutExpired) as exc:
        return f"{compiler} does not work: {exc}"
    finally:
        beside.unlink(missing_ok=True)
