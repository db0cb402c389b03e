"""The cache of root file systems."""

from __future__ import annotations

import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from migrate.debian import DebianError
from migrate.lab import images

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("change", [{"packages": ("x",)}, {"programs": ()}, {"trees": ("usr/lib/x",)}, {"name": "y"}])
def test_another_recipe_is_another_image(change: dict[str, tuple[str, ...]]) -> None:
    """Whatever decides the contents is in the digest, so a changed recipe never finds the old image."""
    assert replace(images.REDIS, **change).digest() != images.REDIS.digest()  # type: ignore[arg-type]


def test_image_in_the_cache_is_not_built_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the file in place nothing is fetched, not even mmdebstrap is looked for."""
    monkeypatch.setenv("PATH", "/nonexistent")
    there = tmp_path / f"busybox-{images.BUSYBOX.digest()}.tar"
    there.touch()
    assert images.busybox_rootfs(tmp_path) == there


def test_missing_mmdebstrap_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the tool the error names the package to install, and nothing is left in the cache."""
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(DebianError) as caught:
        images.busybox_rootfs(tmp_path)
    assert "mmdebstrap" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_tar_is_the_same_each_time(tmp_path: Path) -> None:
    """Two builds from the same packages give the same bytes, sorted, owned by root, with /tmp open to all."""
    root = tmp_path / "root"
    (root / "bin").mkdir(parents=True)
    (root / "bin/busybox").write_text("#!/bin/sh\necho sh; echo busybox; echo ls\n")
    (root / "bin/busybox").chmod(0o755)
    (root / "usr/lib/x/__pycache__").mkdir(parents=True)
    (root / "usr/lib/x/module.py").write_text("pass")
    (root / "usr/lib/x/__pycache__/module.pyc").write_text("")
    recipe = images.Recipe(name="r", trees=("usr/lib/x",))
    for name in ("a.tar", "b.tar"):
        images._write(tmp_path / name, recipe, root)
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    with tarfile.open(tmp_path / "a.tar") as tar:
        members = tar.getmembers()
    names = [member.name for member in members]
    assert names == sorted(names)
    assert {"bin/sh", "bin/ls", "usr/lib/x/module.py", "etc/passwd", "proc"} <= set(names)
    assert not [name for name in names if "__pycache__" in name]
    assert {(member.uid, member.gid, member.mtime) for member in members} == {(0, 0, 0)}
    assert next(member.mode for member in members if member.name == "tmp") == 0o1777
