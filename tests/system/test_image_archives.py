"""Archives that other tools wrote and read: skopeo makes them out of ours, and takes ours; the agent's calls in between."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.storage import ingest, save
from agent.storage.archive import Archive
from agent.storage.images import Image, ImageConfig, ImageStore
from tests.unit.agent.storage import tars

pytestmark = pytest.mark.system

LAYER = tars.make(
    tars.member("bin", kind=tars.DIR, mode=0o755),
    (tars.member("bin/tool", mode=0o4755), b"#!" * 9000),
    tars.member("bin/link", kind=tars.LINK, link="tool"),
)


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "images")


def load(store: ImageStore, path: Path) -> list[Image]:
    def chunks() -> Iterator[bytes]:
        with path.open("rb") as file:
            while chunk := file.read(5000):
                yield chunk

    with store.workspace() as work, store.hold() as hold:
        sources = Archive(chunks(), work, lambda _: None).images()
        for source in sources:
            ingest.fetch(store, source, hold, lambda _: None)
        return [ingest.record(store, source) for source in sources]


def skopeo(*words: str) -> str:
    return subprocess.run(["skopeo", *words], capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize(
    ("made", "options", "name"),
    [
        ("docker-archive:{path}:r.example/web:7", (), "r.example/web:7"),
        ("oci-archive:{path}:web:7", ("--dest-compress-format", "gzip"), "web:7"),
        ("oci-archive:{path}:web:7", ("--dest-compress-format", "zstd"), "web:7"),
    ],
    ids=["docker-archive", "oci-gzip", "oci-zstd"],
)
def test_ours_goes_through_skopeo_and_back(
    store: ImageStore, tmp_path: Path, made: str, options: tuple[str, ...], name: str
) -> None:
    """What we save skopeo reads; what it makes of that we read: same layer, same config values, each compression."""
    config = ImageConfig(cmd=("tool",), env=("A=1",), exposed_ports=("80/tcp",), labels={"k": "v"})
    image = store.import_tar("web:7", config, [LAYER])
    ours, theirs = tmp_path / "ours.tar", tmp_path / "theirs.tar"
    ours.write_bytes(b"".join(save.archive(store, [(image, ("web:7",))])))
    assert json.loads(skopeo("inspect", "--config", f"docker-archive:{ours}"))["config"]["Cmd"] == ["tool"]
    skopeo("copy", "--insecure-policy", *options, f"oci-archive:{ours}", made.format(path=theirs))
    other = ImageStore(tmp_path / "other")
    (loaded,) = load(other, theirs)
    assert loaded.name == name
    assert (loaded.layers, loaded.config) == (image.layers, config)
    tool = other.layer_path(loaded.layers[0]) / "bin" / "link"
    assert tool.read_bytes() == b"#!" * 9000 and tool.stat().st_mode & 0o7777 == 0o4755
    kinds = {"docker-archive": "tar", "gzip": "tar+gzip", "zstd": "tar+zstd"}
    assert other.layer(loaded.layers[0]).media_type.endswith(kinds[options[-1] if options else "docker-archive"])
