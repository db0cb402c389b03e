"""A private CRIU under /opt/migrate/criu, for hosts whose own is missing, does not start, or is too old for the kernel.

    bin/criu        starts sbin/criu through its own dynamic loader: the system's libc is neither used nor touched
    sbin/criu lib/  the program and exactly the libraries it is linked with
    pycriu-path/    holds the package `pycriu` and nothing else

The files come from Debian's packages, which are unpacked and neither run nor registered (mmdebstrap's variant extract).
Built beside its place and renamed, so a half-made bundle is never seen. Standard library only.
"""

from __future__ import annotations

import contextlib
import platform
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

from agent.errors import Unsupported
from agent.setup import criu

_SUITE = "sid"
_TIMEOUT_S = 600.0
_WRAPPER = """#!/bin/sh
# Made by agent/setup/criu_bundle.py.
exec {bundle}/lib/{loader} --library-path {bundle}/lib {bundle}/sbin/criu "$@"
"""


def ensure(bundle: Path = criu.BUNDLE, *, carried: Path | None = None) -> str:
    """Make sure that `criu.locate()` finds a CRIU that works here; say what was done, "" for nothing. `carried`: a bundle that
    is taken instead of one that is downloaded.

    Raises Unsupported where it cannot be made, or where it does not pass `criu check` (every time: a kernel can change).
    """
    did = ""
    if not _bundle_fits(bundle):
        if not (bundle / "bin" / "criu").exists() and (system := _system_criu()) is not None:
            return _link_system_pycriu(system)
        if carried is None:
            build(bundle)
        else:
            _take(carried, bundle)
        did = f"built CRIU {'.'.join(map(str, criu.version_of(bundle / 'bin' / 'criu')))} in {bundle}"
    if complaint := criu.check(bundle / "bin" / "criu"):
        raise Unsupported(
            f"CRIU is in {bundle}, but `criu check` says: {complaint}",
            hint="see `make doctor`; inside a container or a chroot this cannot work, else the kernel lacks what it names",
        )
    return did


def build(bundle: Path) -> None:
    """Download, unpack, pick, and put at `bundle`, replacing what was there. Takes about 10 s and 20 MB."""
    if shutil.which("mmdebstrap") is None:
        raise Unsupported("mmdebstrap is not installed: it unpacks CRIU's packages", hint="apt-get install mmdebstrap")
    bundle.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".criu-build-", dir=bundle.parent) as scratch_name:
        scratch = Path(scratch_name)
        unpacked, made = scratch / "unpacked", scratch / "criu"
        _unpack(unpacked)
        _pick(unpacked, made, bundle)
        made.chmod(0o755)
        if bundle.exists():
            bundle.rename(scratch / "old")  # a CRIU that runs from it keeps its open files
        made.rename(bundle)


def _take(carried: Path, bundle: Path) -> None:
    """Copied beside its place and renamed, as `build` does."""
    bundle.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".criu-build-", dir=bundle.parent) as scratch_name:
        scratch = Path(scratch_name)
        shutil.copytree(carried, scratch / "criu", symlinks=True)
        (scratch / "criu").chmod(0o755)
        if bundle.exists():
            bundle.rename(scratch / "old")
        (scratch / "criu").rename(bundle)


def _bundle_fits(bundle: Path) -> bool:
    binary = bundle / "bin" / "criu"
    if not (bundle / "pycriu-path" / "pycriu" / "rpc_pb2.py").is_file() or not binary.is_file():
        return False
    try:
        return criu.version_of(binary) >= criu.floor(platform.release())
    except Unsupported:
        return False


def _system_criu() -> Path | None:
    """The system's criu if it is complete, new enough and passes its own check."""
    binary = criu.system_binary()
    if binary is None or not (criu.DIST_PYCRIU / "rpc_pb2.py").is_file():
        return None
    try:
        fits = criu.version_of(binary) >= criu.floor(platform.release())
    except Unsupported:
        return None  # it does not start on this kernel: what the bundle is for
    return binary if fits and not criu.check(binary) else None


def _link_system_pycriu(binary: Path) -> str:
    link = criu.SYSTEM_PYCRIU / "pycriu"
    if link.is_symlink() and link.resolve() == criu.DIST_PYCRIU:
        return ""
    link.parent.mkdir(parents=True, exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(criu.DIST_PYCRIU)
    return f"using the system's CRIU, {binary}"


def _unpack(target: Path) -> None:
    """Fill `target` with the unpacked packages. Tries this machine's own mirror first: another may not be reachable."""
    stale = ["--aptopt=Acquire::Check-Valid-Until false"]  # a mirror that lags behind has an index past its date
    attempts = [(mirror, options) for options in ([], stale) for mirror in (*_debian_mirrors(), None)]
    complaints: list[str] = []
    for mirror, options in attempts:
        if options and not any(re.search(r"valid.until|expired|not valid", text, re.IGNORECASE) for text in complaints):
            continue
        argv = ["mmdebstrap", "--variant=extract", "--include=criu,python3-pycriu", *options, _SUITE, str(target)]
        if mirror is not None:
            argv.append(mirror)
        try:
            done = subprocess.run(argv, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
        except subprocess.TimeoutExpired:
            complaints.append(f"mmdebstrap took more than {_TIMEOUT_S:.0f} s")
            continue
        if done.returncode == 0 and (target / "usr/sbin/criu").is_file():
            return
        complaints.append(done.stderr.strip()[-800:])
        shutil.rmtree(target, ignore_errors=True)
    raise Unsupported(
        f"could not fetch CRIU from Debian {_SUITE}: {complaints[-1]}",
        hint="check that apt-get update works; or copy /opt/migrate/criu from a host of the same architecture",
    )


def _debian_mirrors() -> Iterator[str]:
    """Base addresses of the Debian archives in apt's own configuration, without the security and update archives."""
    with contextlib.suppress(OSError):
        argv = ["apt-get", "indextargets", "--format", "$(ORIGIN)|$(LABEL)|$(REPO_URI)"]
        done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
        seen = dict.fromkeys(
            line.split("|", 2)[2] for line in done.stdout.splitlines() if line.startswith("Debian|Debian|")
        )
        yield from seen


def _pick(unpacked: Path, made: Path, final: Path) -> None:
    """Copy what CRIU needs out of `unpacked` into `made`, which will be renamed to `final`."""
    program = unpacked / "usr/sbin/criu"
    loaders = sorted((unpacked / "usr/lib").glob("*-linux-gnu*/ld-linux-*.so.*"))
    if not loaders:
        raise Unsupported(
            f"the packages for {platform.machine()} hold no dynamic loader",
            hint="CRIU bundles exist for x86-64 and arm64",
        )
    libraries = loaders[0].parent
    argv = [str(loaders[0]), "--library-path", str(libraries), "--list", str(program)]
    listed = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False).stdout
    needed = [Path(path) for path in re.findall(rf"=> ({re.escape(str(libraries))}/\S+)", listed)]
    if not needed or "not found" in listed:
        raise Unsupported(f"CRIU's libraries are not all in its packages: {listed.strip()}", hint=criu.REMEDY)
    for folder in ("bin", "sbin", "lib", "pycriu-path"):
        (made / folder).mkdir(parents=True)
    for path in {*needed, loaders[0]}:
        shutil.copy2(path.resolve(), made / "lib" / path.name)
    shutil.copy2(program, made / "sbin" / "criu")
    shutil.copytree(unpacked / "usr/lib/python3/dist-packages/pycriu", made / "pycriu-path" / "pycriu")
    wrapper = made / "bin" / "criu"
    wrapper.write_text(_WRAPPER.format(bundle=final, loader=loaders[0].name))
    wrapper.chmod(0o755)
