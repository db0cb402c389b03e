"""Archives of images: what Docker, Podman, skopeo and we write is read; what is damaged or foreign is refused by name."""

from __future__ import annotations

import gzip
import io
import json
import os
import stat
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest
import zstandard

from agent.errors import AgentError, InvalidArgument, StorageError, Unsupported
from agent.storage import ingest, manifest, save, tarstream
from agent.storage.archive import Archive
from agent.storage.images import Image, ImageStore
from agent.storage.ingest import LayerProgress
from tests.unit.agent.storage import archives, tars
from tests.unit.agent.storage.archives import DOCKER_LAYER, Layout, digest, named

pytestmark = pytest.mark.unit

BASE = tars.make(
    tars.member("etc", kind=tars.DIR, mode=0o755),
    (tars.member("etc/motd"), b"base"),
    (tars.member("etc/old"), b"old"),
)
TOP = tars.make(tars.member("etc", kind=tars.DIR, mode=0o755), (tars.member("etc/new"), b"new"))
BASE_ID, TOP_ID = digest(BASE), digest(TOP)
OTHER_ARCHITECTURE = "s390x"


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "images")


def pieces(data: bytes) -> Iterator[bytes]:
    for start in range(0, len(data), 3000):
        yield data[start : start + 3000]


def load(store: ImageStore, data: bytes, name: str = "", seen: list[LayerProgress] | None = None) -> list[Image]:
    report = (seen if seen is not None else []).append
    with store.workspace() as work, store.hold() as hold:
        sources = Archive(pieces(data), work, report).images(name)
        for source in sources:
            ingest.fetch(store, source, hold, report)
        return [ingest.record(store, source) for source in sources]


def layers(*, docker: bool = False) -> list[tuple[str, bytes]]:
    if docker:  # the same bytes each time: gzip would write the time
        return [(DOCKER_LAYER, gzip.compress(layer, mtime=0)) for layer in (BASE, TOP)]
    return [(tarstream.MEDIA_ZSTD, zstd(BASE)), (tarstream.MEDIA_TAR, TOP)]


@pytest.mark.parametrize("wrap", [bytes, gzip.compress, zstd], ids=["plain", "gzip", "zstd"])
@pytest.mark.parametrize("docker", [False, True], ids=["oci", "docker"])
def test_an_oci_layout_is_loaded(store: ImageStore, docker: bool, wrap: object) -> None:
    """Both families of media types, every compression, of the archive too; the config is kept as it came."""
    layout, stored = Layout(), layers(docker=docker)
    document = archives.config(BASE_ID, TOP_ID, Cmd=["serve"])
    layout.entries.append(layout.manifest(document, stored, docker=docker, **named("web:1")))
    (image,) = load(store, wrap(layout.tar()))  # type: ignore[operator]
    assert (image.name, image.layers, image.config.cmd) == ("web:1", (BASE_ID, TOP_ID), ("serve",))
    assert image.document.encode() == document
    assert (store.layer_path(TOP_ID) / "etc" / "new").read_bytes() == b"new"
    assert store.layer(BASE_ID).blob == digest(stored[0][1])


def test_a_docker_archive_is_loaded(store: ImageStore) -> None:
    """Old layout: layers in directories, a shared one as a link, members in any order, several names."""
    one, two = archives.config(BASE_ID), archives.config(BASE_ID, TOP_ID)
    entries = [
        {"Config": f"{digest(one)[7:]}.json", "RepoTags": ["one:1", "r.example:5000/one:2"], "Layers": ["a/layer.tar"]},
        {"Config": f"{digest(two)[7:]}.json", "RepoTags": None, "Layers": ["b/layer.tar", "c/layer.tar"]},
    ]
    data = archives.pack(
        {
            "c/layer.tar": TOP,
            f"{digest(two)[7:]}.json": two,
            "./a/layer.tar": BASE,
            "manifest.json": json.dumps(entries).encode(),
            f"{digest(one)[7:]}.json": one,
        },
        {"b/layer.tar": "../a/layer.tar"},
    )
    first, second = load(store, data)
    assert {image.name for image in store.list()} == {"one:1", "r.example:5000/one:2", f"@{second.digest}"}
    assert (first.layers, second.layers) == ((BASE_ID,), (BASE_ID, TOP_ID))


@pytest.mark.needs("privileges")
def test_whiteouts_become_the_overlays(store: ImageStore) -> None:
    """What a layer deletes is a whiteout of overlayfs in it, and an opaque directory is marked so."""
    top = tars.make(
        tars.member("etc", kind=tars.DIR, mode=0o755),
        (tars.member("etc/.wh.old"), b""),
        tars.member("srv", kind=tars.DIR, mode=0o755),
        (tars.member("srv/.wh..wh..opq"), b""),
    )
    layout = Layout()
    layout.entries.append(
        layout.manifest(archives.config(BASE_ID, digest(top)), [*layers()[:1], (tarstream.MEDIA_TAR, top)])
    )
    load(store, layout.tar())
    whiteout = (store.layer_path(digest(top)) / "etc" / "old").stat()
    assert stat.S_ISCHR(whiteout.st_mode) and whiteout.st_rdev == 0
    assert os.getxattr(store.layer_path(digest(top)) / "srv", "trusted.overlay.opaque") == b"y"


def test_only_missing_layers_are_unpacked(store: ImageStore) -> None:
    """A layer that is here is called so and not read again."""
    layout = Layout()
    layout.entries.append(layout.manifest(archives.config(BASE_ID), layers()[:1], **named("base:1")))
    load(store, layout.tar())
    layout.entries.append(layout.manifest(archives.config(BASE_ID, TOP_ID), layers(), **named("web:1")))
    seen: list[LayerProgress] = []
    load(store, layout.tar(), seen=seen)
    assert [one.text for one in seen if one.layer == BASE_ID] == ["here", "here"]
    assert [one.text for one in seen if one.layer == TOP_ID] == ["waiting", "fetching", "done"]


@pytest.mark.parametrize("nested", [True, False])
def test_the_hosts_platform_is_picked(store: ImageStore, nested: bool) -> None:
    """Of a multi-arch index, nested or not, the host's image; attestations beside it do not matter."""
    layout = Layout()
    mine = {"architecture": manifest.host_architecture(), "os": "linux"}
    other = {"architecture": OTHER_ARCHITECTURE, "os": "linux"}
    foreign = archives.config(TOP_ID, architecture=OTHER_ARCHITECTURE)
    entries = [
        layout.manifest(foreign, layers()[1:], platform=other),
        layout.manifest(archives.config(BASE_ID), layers()[:1], platform=mine),
        layout.manifest(archives.config(), [], platform={"architecture": "unknown", "os": "unknown"}),
    ]
    layout.entries += [layout.index(entries, **named("web:1"))] if nested else entries
    (image,) = load(store, layout.tar())
    assert image.layers == (BASE_ID,)
    assert image.name == ("web:1" if nested else f"@{image.digest}")


def test_no_image_for_this_platform_is_said(store: ImageStore) -> None:
    """The error names this host's platform and those that there are, for an index and for a single image."""
    layout = Layout()
    foreign = layout.manifest(
        archives.config(BASE_ID, architecture=OTHER_ARCHITECTURE),
        layers()[:1],
        platform={"architecture": OTHER_ARCHITECTURE, "os": "linux", "variant": "v7"},
    )
    layout.entries.append(layout.index([foreign], **named("web:1")))
    with pytest.raises(Unsupported, match=f"no image for linux/{manifest.host_architecture()}.* has linux/s390x/v7"):
        load(store, layout.tar())
    layout.entries[:] = [{key: value for key, value in foreign.items() if key != "platform"}]
    with pytest.raises(Unsupported, match="it has linux/s390x"):
        load(store, layout.tar())
    assert store.list() == []


def test_a_name_can_be_given_to_what_has_none(store: ImageStore) -> None:
    """Some tools write only a tag; then --name decides, else the image has no tag."""
    layout = Layout()
    layout.entries.append(layout.manifest(archives.config(BASE_ID), layers()[:1], **named("latest")))
    assert load(store, layout.tar())[0].name.startswith("@sha256:")
    assert load(store, layout.tar(), "web")[0].name == "web:latest"
    assert [image.name for image in store.list()] == ["web:latest"]


def damaged(case: str) -> bytes:
    layout = Layout()
    layout.entries.append(layout.manifest(archives.config(BASE_ID, TOP_ID), layers(docker=True), **named("web:1")))
    blob = f"blobs/sha256/{digest(layers(docker=True)[1][1])[7:]}"
    good = layout.files[blob]
    if case == "layer":
        layout.files[blob] = good[:60] + bytes([good[60] ^ 1]) + good[61:]
    elif case == "cut layer":
        layout.files[blob] = good[:-30]
    elif case == "no layer":
        del layout.files[blob]
    elif case == "manifest":
        layout.files[f"blobs/sha256/{layout.entries[0]['digest'][7:]}"] += b" "
    elif case == "diff id":
        wrong = archives.config(BASE_ID, BASE_ID)
        layout.entries[:] = [layout.manifest(wrong, layers(docker=True))]
    elif case == "too few":
        layout.entries[:] = [layout.manifest(archives.config(BASE_ID), layers(docker=True))]
    elif case == "cut archive":
        return layout.tar()[:-9000]
    return layout.tar()


@pytest.mark.parametrize(
    ("case", "text"),
    [
        ("layer", "blob sha256:[0-9a-f]+ arrived as sha256:"),
        ("cut layer", "blob sha256:[0-9a-f]+ arrived as sha256:"),
        ("no layer", "is not in the archive"),
        ("manifest", "should be sha256:[0-9a-f]+ and is"),
        ("diff id", "layer sha256:[0-9a-f]+ arrived as"),
        ("too few", "has 2 layers, its config names 1"),
        ("cut archive", "not a tar, or damaged|stops"),
    ],
)
def test_damage_is_found_and_nothing_is_kept(store: ImageStore, tmp_path: Path, case: str, text: str) -> None:
    """Every digest is checked: a clear error, no image, and after a collection no layer either."""
    with pytest.raises(StorageError, match=text):
        load(store, damaged(case))
    assert store.list() == []
    store.gc([])
    assert not list((tmp_path / "images" / "layers").iterdir())
    assert not list((tmp_path / "images" / "blobs" / "sha256").iterdir())
    assert not list((tmp_path / "images" / "tmp").iterdir())


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"schemaVersion": 1}, "schema 1"),
        ({"mediaType": "application/vnd.example"}, "of type application/vnd.example"),
        ({"config": {"mediaType": "application/vnd.cncf.helm.config.v1+json"}}, "helm"),
        ({"layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip+encrypted"}]}, "encrypted"),
    ],
)
def test_what_is_no_image_is_refused_by_its_type(store: ImageStore, change: dict[str, object], text: str) -> None:
    """Schema 1, charts and encrypted layers: the error says what it is."""
    layout = Layout()
    entry = layout.manifest(archives.config(BASE_ID), layers()[:1])
    raw = json.loads(layout.files[f"blobs/sha256/{entry['digest'][7:]}"])
    for key, value in change.items():
        if key == "config":
            raw[key] |= value  # type: ignore[operator]
        elif key == "layers":
            raw[key][0] |= value[0]  # type: ignore[index]
        else:
            raw[key] = value
    layout.entries.append(layout.blob(json.dumps(raw).encode(), entry["mediaType"]))
    with pytest.raises(Unsupported, match=text):
        load(store, layout.tar())


def test_the_tar_of_a_root_file_system_is_not_loaded(store: ImageStore) -> None:
    """The error names the command that does it."""
    with pytest.raises(InvalidArgument, match="holds no images") as caught:
        load(store, BASE)
    assert "migrate import" in caught.value.hint


@pytest.mark.parametrize("member", ["../../etc/passwd", "/etc/passwd"])
def test_names_in_the_tar_never_become_paths(store: ImageStore, tmp_path: Path, member: str) -> None:
    """A member that would leave the workspace lands in a numbered file like any other."""
    with pytest.raises(AgentError):
        load(store, archives.pack({member: b"x", "manifest.json": b"[{}]"}))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["images"]


def test_links_in_a_circle_end(store: ImageStore) -> None:
    """An archive whose layer is a link to itself has no such layer."""
    document = archives.config(BASE_ID)
    entry = {"Config": "c.json", "RepoTags": ["a:1"], "Layers": ["x"]}
    data = archives.pack({"c.json": document, "manifest.json": json.dumps([entry]).encode()}, {"x": "y", "y": "x"})
    with pytest.raises(StorageError, match="its layer x is not in the archive"):
        load(store, data)


def test_saved_images_are_loaded_again(store: ImageStore, tmp_path: Path) -> None:
    """The same digests, configs and archives on the other side; each blob once; the same bytes each time."""
    layout = Layout()
    layout.entries.append(layout.manifest(archives.config(BASE_ID), layers()[:1], **named("base:1")))
    layout.entries.append(layout.manifest(archives.config(BASE_ID, TOP_ID), layers(), **named("r:5000/web:2")))
    base, web = load(store, layout.tar())
    store.tag("base:1", "also")
    wanted = save.select([("base:1", base), ("also", store.get("also")), (web.digest, web)])
    assert [tags for _, tags in wanted] == [("base:1", "also:latest"), ()]
    data = b"".join(save.archive(store, wanted))
    assert data == b"".join(save.archive(store, wanted))
    with tarfile.open(fileobj=io.BytesIO(data)) as tar:
        names = tar.getnames()
    assert len(names) == len(set(names)) == 2 + 2 * 2 + 3
    other = ImageStore(tmp_path / "other")
    loaded = load(other, data, "web:again")
    assert {image.digest for image in loaded} == {base.digest, web.digest}
    assert {image.name for image in other.list()} == {"base:1", "also:latest", f"@{web.digest}"}
    assert other.layer(BASE_ID) == store.layer(BASE_ID)
