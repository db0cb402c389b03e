"""A real base system of Debian 12: made once a state of the archives (40 s), then kept in /var/cache/migrate."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest
import zstandard

from agent.storage.images import ImageConfig, ImageStore
from migrate import debian

pytestmark = pytest.mark.system


def test_a_base_of_debian_is_an_image_with_apt(tmp_path: Path) -> None:
    """apt with this machine's archives, no service starts, nothing of this machine in it, no time after the archives'."""
    path = debian.base("debian:12")
    epoch = debian.release_date(debian.archives("bookworm"))
    plain = zstandard.ZstdDecompressor().stream_reader(path.read_bytes())
    with plain, tarfile.open(fileobj=plain, mode="r|") as tar:
        members = {member.name.removeprefix("./"): member for member in tar}
    assert {"usr/bin/apt-get", "usr/sbin/policy-rc.d", "etc/apt/sources.list", "usr/bin/perl"} <= set(members)
    assert not {"etc/resolv.conf", "etc/hostname", "var/log/bootstrap.log"} & set(members)
    lists = [name for name in members if name.startswith(("var/lib/apt/lists/", "var/cache/apt/"))]
    assert not [name for name in lists if members[name].isreg() and members[name].size]
    assert epoch == 0 or max(member.mtime for member in members.values()) <= epoch
    with path.open("rb") as file:
        store = ImageStore(tmp_path / "images")
        image = store.import_tar("debian:12", ImageConfig(cmd=("bash",)), iter(lambda: file.read(1 << 20), b""))
    root = store.layer_path(image.layers[0])
    listed = (root / "etc/apt/sources.list").read_text()
    for one in debian.archives("bookworm"):
        assert f"{one.uri.rstrip('/')}" in listed and f" {one.suite} " in listed
    assert (root / "usr/sbin/policy-rc.d").stat().st_mode & 0o111
