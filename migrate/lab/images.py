"""Root file systems for demo and tests, made from Debian's packages and kept below /var/cache/migrate.

    redis     redis-server, redis-cli and the libraries they are linked with; busybox for sh and the rest
    busybox   one static program under many names

The packages are unpacked, never installed: none of their scripts runs and the machine's package database is not
touched. Built beside its place and renamed. The same packages give the same bytes: members sorted, times and owners
fixed.
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import re
import subprocess
import tarfile
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from migrate import debian
from migrate.lab.layout import LabError

CACHE_DIR = debian.CACHE_DIR
_SUITE = "bookworm"
_FORMAT = 1  # raise it when the code below makes other files of the same recipe
_DIRECTORIES = ("bin", "dev", "etc", "proc", "root", "run", "srv", "sys", "tmp", "var", "var/lib", "var/tmp")
_UNWANTED = {"__pycache__", "test", "tests", "idlelib"}
_STICKY = ("tmp", "var/tmp")
_TEXTS = {
    "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n",
    "etc/group": "root:x:0:\nnogroup:x:65534:\n",
}


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What an image holds besides busybox: out of `packages` the `programs`, with their libraries, and `trees`."""

    name: str
    packages: tuple[str, ...] = ()
    programs: tuple[str, ...] = ()
    # Directories, taken whole but for Python's caches and tests; extension modules bring their libraries.
    trees: tuple[str, ...] = ()

    def digest(self) -> str:
        """Changes when anything that decides the contents does, new versions of the packages excepted."""
        text = json.dumps([_FORMAT, _SUITE, platform.machine(), asdict(self)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


REDIS = Recipe(
    name="redis",
    packages=("redis-server", "redis-tools"),
    programs=("usr/bin/redis-server", "usr/bin/redis-cli", "usr/bin/redis-benchmark"),
)
PYTHON = Recipe(
    # libffi8 comes with python3 in any case: it is named because ctypes is what tests/workloads live on.
    name="python",
    packages=("python3", "libffi8"),
    programs=("usr/bin/python3",),
    trees=("usr/lib/python3.11", "usr/lib/python3"),
)
BUSYBOX = Recipe(name="busybox")


def redis_rootfs(cache_dir: Path = CACHE_DIR) -> Path:
    """A tar, about 20 MB, with redis-server, redis-cli, redis-benchmark and sh. See `rootfs`."""
    return rootfs(REDIS, cache_dir)


def busybox_rootfs(cache_dir: Path = CACHE_DIR) -> Path:
    """A tar of 2 MB with busybox under all its names. See `rootfs`."""
    return rootfs(BUSYBOX, cache_dir)


def python_rootfs(cache_dir: Path = CACHE_DIR) -> Path:
    """A tar, about 35 MB, with python3 and its standard library, for tests/workloads. See `rootfs`."""
    return rootfs(PYTHON, cache_dir)


def rootfs(recipe: Recipe, cache_dir: Path = CACHE_DIR) -> Path:
    """The image's tar, built if not in the cache, which needs mmdebstrap, a mirror and up to a minute. DebianError."""
    path = cache_dir / f"{recipe.name}-{recipe.digest()}.tar"
    if path.exists():
        return path
    cache_dir.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{recipe.name}-", dir=cache_dir) as scratch_name:
        scratch = Path(scratch_name)
        unpacked, made = scratch / "unpacked", scratch / "image.tar"
        debian.extract((*recipe.packages, "busybox-static"), _SUITE, unpacked)
        _write(made, recipe, unpacked)
        made.rename(path)
    return path


def _libraries(root: Path, program: Path) -> list[Path]:
    """What the dynamic loader of the unpacked tree says that `program` needs, and the loader itself; below `root`."""
    loaders = sorted(root.glob("lib*/ld-linux*.so.*"))
    folders = [str(folder) for pattern in ("lib", "usr/lib") for folder in root.glob(f"{pattern}/*-linux-gnu*")]
    if not loaders:
        raise LabError(f"the packages for {platform.machine()} hold no dynamic loader")
    # The loader may be a link to an absolute path inside the tree: start what it names, from outside.
    real = next(Path(folder) / loaders[0].name for folder in folders if (Path(folder) / loaders[0].name).exists())
    command = [str(real), "--library-path", ":".join(folders), "--list", str(program)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    found = [Path(match) for match in re.findall(r"=> (\S+)", result.stdout)]
    if "statically linked" in result.stdout:
        return []
    if result.returncode or not found:
        raise LabError(
            f"{' '.join(command)} ended with {result.returncode}: {(result.stderr or result.stdout).strip()}"
        )
    return [*loaders, real, *found]


def _write(path: Path, recipe: Recipe, root: Path) -> None:
    members: dict[str, tarfile.TarInfo] = {}
    contents: dict[str, bytes] = {}

    def add(name: str, kind: bytes, *, mode: int, data: bytes = b"", link: str = "") -> None:
        for parent in reversed(Path(name).parents[:-1]):
            if str(parent) not in members:
                add(str(parent), tarfile.DIRTYPE, mode=0o755)
        member = tarfile.TarInfo(name)
        member.type, member.mode, member.linkname, member.size = kind, mode, link, len(data)
        members[name], contents[name] = member, data

    def take(source: Path) -> None:
        """A file under its own path; a link is followed, one step at a time, as far as it stays in the tree."""
        name = str(source.relative_to(root))
        if source.is_symlink():
            link = str(source.readlink())
            add(name, tarfile.SYMTYPE, mode=0o777, link=link)
            take(root / link.lstrip("/") if link.startswith("/") else source.parent / link)
        else:
            add(name, tarfile.REGTYPE, mode=0o755, data=source.read_bytes())

    def take_tree(tree: Path) -> None:
        for source in tree.rglob("*"):
            # Absolute links lead out of the tree, to packages' configuration that nobody reads here.
            leads_out = source.is_symlink() and source.readlink().is_absolute()
            if source.is_file() and not leads_out and not _UNWANTED & set(source.parts):
                take(source)
                if source.suffix == ".so":  # an extension module: libffi for ctypes, libssl for ssl
                    for library in _libraries(root, source):
                        take(library)

    for name in _DIRECTORIES:
        add(name, tarfile.DIRTYPE, mode=0o1777 if name in _STICKY else 0o755)
    for name, text in _TEXTS.items():
        add(name, tarfile.REGTYPE, mode=0o644, data=text.encode())
    busybox = next(place for folder in ("bin", "usr/bin") if (place := root / folder / "busybox").is_file())
    add("bin/busybox", tarfile.REGTYPE, mode=0o755, data=busybox.read_bytes())
    for applet in subprocess.run([busybox, "--list"], capture_output=True, text=True, check=True).stdout.split():
        if applet != "busybox":
            add(f"bin/{applet}", tarfile.SYMTYPE, mode=0o777, link="busybox")
    for program in recipe.programs:
        take(root / program)
        for library in _libraries(root, root / program):
            take(library)
    for tree in recipe.trees:
        take_tree(root / tree)
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for name in sorted(members):
            tar.addfile(members[name], io.BytesIO(contents[name]))
