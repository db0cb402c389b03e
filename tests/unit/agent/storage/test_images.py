"""The image store: what goes in comes out, on this host and on the next."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from agent.errors import AgentError, InvalidArgument, NotFound, StorageError, WrongState
from agent.storage.images import Image, ImageConfig, ImageStore
from tests.unit.agent.storage import tars

pytestmark = pytest.mark.unit

CONFIG = ImageConfig(
    cmd=("run", "it"),
    entrypoint=("/init",),
    env=("A=1", "B=ä"),
    working_dir="/srv",
    user="web",
    labels={"k": "v"},
    stop_signal="SIGINT",
)
TAR = tars.make(
    tars.member("etc", kind=tars.DIR, mode=0o755),
    (tars.member("etc/motd"), b"hello"),
    (tars.member("big"), bytes(700_000)),
)
DIFF_ID = f"sha256:{hashlib.sha256(TAR).hexdigest()}"
OTHER = tars.make((tars.member("other"), b"other"))


def zstd(data: bytes) -> bytes:
    return zstandard.ZstdCompressor().compress(data)


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "images")


def pieces(data: bytes, size: int = 1000) -> list[bytes]:
    return [data[start : start + size] for start in range(0, len(data), size)]


def left_over(root: Path) -> list[str]:
    """Files that are neither a lock nor the list of names."""
    return [
        str(path.relative_to(root))
        for path in root.rglob("*")
        if path.is_file() and path.name not in (".lock", "images.json")
    ]


def move_layer(source: ImageStore, target: ImageStore, diff_id: str) -> None:
    file, size = source.open_layer(diff_id)
    with file, target.receive_layer(diff_id) as writer:
        data = file.read()
        assert len(data) == size
        for piece in pieces(data, 4096):
            writer.write(memoryview(piece))
        writer.commit()


@pytest.mark.parametrize("compress", [bytes, gzip.compress, zstd], ids=["plain", "gzip", "zstd"])
@pytest.mark.parametrize("size", [1, 3, 1000, 1 << 20])
def test_import(store: ImageStore, compress: Callable[[bytes], bytes], size: int) -> None:
    """Every compression, cut anywhere, gives the same layer and the same image; the archive is kept as it came."""
    blob = compress(TAR)
    if size < 10:
        blob = compress(tars.make((tars.member("f"), b"short")))
    image = store.import_tar("web", CONFIG, iter(pieces(blob, size)))
    assert (image.name, image.config) == ("web:latest", CONFIG)
    assert image.created_unix_ns == 1_700_000_000 * 10**9
    assert (
        store.get("web") == store.get("web:latest") == store.get(image.digest) == store.get(image.digest[7:19]) == image
    )
    assert store.list() == [image]
    file, size_bytes = store.open_layer(image.layers[0])
    with file:
        assert file.read() == blob
    assert size_bytes == len(blob)
    if size >= 10:
        assert image.layers == (DIFF_ID,)
        assert image.size_bytes == 700_005
        assert (store.layer_path(DIFF_ID) / "etc" / "motd").read_bytes() == b"hello"


def test_the_digest_depends_on_contents_only(tmp_path: Path) -> None:
    """Two hosts that import the same tar, compressed differently, have the same image; another config is another image."""
    one, other = ImageStore(tmp_path / "1"), ImageStore(tmp_path / "2")
    digest = one.import_tar("a", CONFIG, [TAR]).digest
    assert other.import_tar("b", CONFIG, [zstd(TAR)]).digest == digest
    assert other.import_tar("c", ImageConfig(), [TAR]).digest != digest


def test_manifest_and_config_are_oci_documents(store: ImageStore, tmp_path: Path) -> None:
    """The blobs named by digests are an OCI manifest and config, and name the layer."""
    image = store.import_tar("web", CONFIG, [TAR])
    blobs = tmp_path / "images" / "blobs" / "sha256"
    manifest = json.loads((blobs / image.digest[7:]).read_bytes())
    assert manifest["mediaType"] == "application/vnd.oci.image.manifest.v1+json"
    assert manifest["layers"] == [
        {"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": DIFF_ID, "size": len(TAR)}
    ]
    config = json.loads((blobs / manifest["config"]["digest"][7:]).read_bytes())
    assert config["rootfs"] == {"type": "layers", "diff_ids": [DIFF_ID]}
    assert config["config"]["StopSignal"] == "SIGINT"
    assert config["created"] == "2023-11-14T22:13:20.000000000Z"
    assert manifest["config"]["size"] == len((blobs / manifest["config"]["digest"][7:]).read_bytes())


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"no tar at all, but long enough " * 50,
        TAR[:-10_240],
        TAR[:1024],
        TAR[:5000],
        gzip.compress(TAR)[:-20],
        zstd(TAR)[:-4],
        gzip.compress(TAR)[:300] + b"xx" + gzip.compress(TAR)[302:],
        TAR[:512] + TAR[:100] + b"\xff" * 412 + TAR[1024:],
    ],
    ids=[
        "empty",
        "text",
        "no end mark",
        "one header",
        "cut in a file",
        "gzip cut",
        "zstd cut",
        "gzip damaged",
        "header damaged",
    ],
)
def test_damaged_archives_leave_nothing(store: ImageStore, tmp_path: Path, data: bytes) -> None:
    """What is not a whole tar is refused and leaves no file behind."""
    with pytest.raises(StorageError):
        store.import_tar("web", CONFIG, pieces(data))
    assert left_over(tmp_path / "images") == []
    assert store.list() == []


def test_an_error_of_the_caller_leaves_nothing(store: ImageStore, tmp_path: Path) -> None:
    """When the chunks stop with an exception, that exception comes out and nothing stays."""

    def broken() -> object:
        yield TAR[:5000]
        raise RuntimeError("the client is gone")

    with pytest.raises(RuntimeError, match="the client is gone"):
        store.import_tar("web", CONFIG, broken())  # type: ignore[arg-type]
    assert left_over(tmp_path / "images") == []


@pytest.mark.parametrize("name", ["registry:5000/team/web", "a/b/c:1.2-x_y", "debian:12"])
def test_good_names(store: ImageStore, name: str) -> None:
    """Registries with ports, paths and tags are names; without a tag it is latest."""
    expected = name if name.rpartition("/")[2].count(":") else f"{name}:latest"
    assert store.import_tar(name, CONFIG, [OTHER]).name == expected


@pytest.mark.parametrize(
    "name", ["", "/", "../x", "a:b:", "A B", "web@sha256:1", "a" * 300, "x:" + "t" * 200, "-a", "a\n"]
)
def test_bad_names(store: ImageStore, name: str) -> None:
    """A name that could confuse people or paths is refused before anything is read."""
    with pytest.raises(InvalidArgument):
        store.import_tar(name, CONFIG, iter(()))


@pytest.mark.parametrize(
    "digest",
    ["", "sha256:", "sha256:../../etc", "sha256:" + "A" * 64, "sha512:" + "0" * 64, "sha256:" + "0" * 64 + "\n"],
)
def test_bad_digests_never_become_paths(store: ImageStore, digest: str) -> None:
    """Diff ids come from other hosts: what is none is refused."""
    for call in (store.layer_path, store.open_layer, store.receive_layer, lambda wanted: store.missing([wanted])):
        with pytest.raises(InvalidArgument):
            call(digest)


def test_not_found(store: ImageStore) -> None:
    """Unknown names, digests and layers are NotFound."""
    for wanted in ("web", "sha256:" + "0" * 64, "0123456789ab"):
        with pytest.raises(NotFound):
            store.get(wanted)
    with pytest.raises(NotFound):
        store.layer_path(DIFF_ID)
    assert store.missing([DIFF_ID]) == [DIFF_ID]


def test_move_to_another_host(tmp_path: Path) -> None:
    """Sent layer by layer and registered, the image is the same on the other host, files and digest."""
    source, target = ImageStore(tmp_path / "source"), ImageStore(tmp_path / "target")
    image = source.import_tar("web", CONFIG, [gzip.compress(TAR)])
    with pytest.raises(NotFound):
        target.register(image)
    assert target.missing(image.layers) == list(image.layers)
    move_layer(source, target, image.layers[0])
    assert target.missing(image.layers) == []
    target.register(image)
    target.register(image)
    assert target.list() == [image]
    assert (target.layer_path(DIFF_ID) / "etc" / "motd").read_bytes() == b"hello"


def test_register_beside_another_image_of_that_name(tmp_path: Path) -> None:
    """A name that means another image here keeps its meaning; the newcomer is found by its digest."""
    source, target = ImageStore(tmp_path / "source"), ImageStore(tmp_path / "target")
    theirs = source.import_tar("web", CONFIG, [TAR])
    ours = target.import_tar("web", CONFIG, [OTHER])
    move_layer(source, target, theirs.layers[0])
    target.register(theirs)
    target.register(theirs)
    assert target.get("web") == ours
    assert target.get(theirs.digest).layers == theirs.layers
    assert target.get(target.get(theirs.digest).name).digest == theirs.digest
    assert len(target.list()) == 2
    target.remove(target.get(theirs.digest).name, force=False)
    assert target.list() == [ours]


def test_register_checks_the_digest(tmp_path: Path) -> None:
    """An image whose announced digest is not that of its parts is refused."""
    store = ImageStore(tmp_path)
    image = store.import_tar("web", CONFIG, [TAR])
    wrong = Image(
        name="other",
        digest="sha256:" + "0" * 64,
        layers=image.layers,
        size_bytes=0,
        created_unix_ns=image.created_unix_ns,
        config=CONFIG,
    )
    with pytest.raises(StorageError, match="announced"):
        store.register(wrong)
    assert store.list() == [image]


def test_a_wrong_layer_leaves_nothing(store: ImageStore, tmp_path: Path) -> None:
    """Other bytes than the diff id promises are refused at commit, and no file stays."""
    with store.receive_layer(DIFF_ID) as writer:
        writer.write(OTHER)
        with pytest.raises(StorageError, match="arrived as"):
            writer.commit()
    assert left_over(tmp_path / "images") == []
    assert store.missing([DIFF_ID]) == [DIFF_ID]


def test_a_layer_that_is_no_tar_stops_the_sender(store: ImageStore) -> None:
    """The receiver need not take all of a stream that is wrong from the start: a later write raises."""
    with store.receive_layer(DIFF_ID) as writer, pytest.raises(StorageError):
        for _ in range(10_000):
            writer.write(b"x" * 10_000)


def test_an_interrupted_layer_leaves_nothing(store: ImageStore, tmp_path: Path) -> None:
    """Leaving the context without commit, even with all bytes written, drops everything."""
    with store.receive_layer(DIFF_ID) as writer:
        writer.write(TAR)
    with pytest.raises(ConnectionError), store.receive_layer(DIFF_ID) as writer:
        writer.write(TAR[:2000])
        raise ConnectionError
    assert left_over(tmp_path / "images") == []
    assert store.missing([DIFF_ID]) == [DIFF_ID]


def test_two_receivers_of_one_layer(store: ImageStore, tmp_path: Path) -> None:
    """Two moves may bring the same layer at once; both commits succeed and one copy stays."""
    with store.receive_layer(DIFF_ID) as one, ImageStore(tmp_path / "images").receive_layer(DIFF_ID) as other:
        one.write(TAR)
        other.write(zstd(TAR))
        one.commit()
        other.commit()
    assert len(left_over(tmp_path / "images")) == 2 + 2  # the archive, its record, two files
    file, size = store.open_layer(DIFF_ID)
    file.close()
    assert size == len(TAR)


def test_remove_and_gc(store: ImageStore, tmp_path: Path) -> None:
    """remove forgets names, gc deletes what neither a name nor a container needs, and nothing else."""
    image = store.import_tar("web", CONFIG, [TAR])
    store.import_tar("alias", CONFIG, [TAR])
    other = store.import_tar("other", CONFIG, [OTHER])
    with pytest.raises(WrongState, match="alias:latest, web:latest"):
        store.remove(image.digest, force=False)
    assert store.remove("web", force=False) == []
    assert store.gc([]) == []
    assert store.remove("alias", force=False) == [DIFF_ID]
    assert store.gc([DIFF_ID]) == []
    assert store.missing([DIFF_ID]) == []
    assert store.gc([]) == [DIFF_ID]
    assert store.missing([DIFF_ID]) == [DIFF_ID]
    assert store.list() == [other]
    assert (store.layer_path(other.layers[0]) / "other").read_bytes() == b"other"
    assert store.remove(other.digest, force=False) == list(other.layers)
    assert store.gc([]) == list(other.layers)
    assert left_over(tmp_path / "images") == []


def test_remove_by_digest_takes_all_names_with_force(store: ImageStore) -> None:
    """With force a digest stands for all names of the image."""
    image = store.import_tar("web", CONFIG, [TAR])
    store.import_tar("alias", CONFIG, [TAR])
    assert store.remove(image.digest, force=True) == [DIFF_ID]
    assert store.list() == []


def test_a_damaged_image_can_be_removed(store: ImageStore, tmp_path: Path) -> None:
    """A manifest with other bytes is reported, and remove is the way out."""
    image = store.import_tar("web", CONFIG, [TAR])
    (tmp_path / "images" / "blobs" / "sha256" / image.digest[7:]).write_bytes(b"{}")
    with pytest.raises(StorageError, match="damaged"):
        store.get("web")
    store.remove("web", force=False)
    assert store.gc([]) == [DIFF_ID]


def test_workspaces_of_the_dead_are_swept_those_of_the_living_are_not(tmp_path: Path) -> None:
    """A process that is killed while it unpacks leaves a directory that the next one to open the store removes."""
    root = tmp_path / "images"
    script = (
        "import sys, time; sys.path.insert(0, sys.argv[1]); from pathlib import Path; from agent.storage.images import ImageStore\n"
        "with ImageStore(Path(sys.argv[2])).receive_layer('sha256:' + '0' * 64) as writer:\n"
        " writer.write(sys.stdin.buffer.read(100_000)); print('ready', flush=True); time.sleep(60)"
    )
    repository = Path(__file__).parents[4]
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(repository), str(root)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert process.stdin is not None and process.stdout is not None
    with process.stdin as stdin, process.stdout as stdout:
        stdin.write(TAR[:100_000])
        stdin.flush()
        assert stdout.readline() == b"ready\n"
        ImageStore(root)
        assert len(list((root / "tmp").iterdir())) == 1  # its owner lives
        process.kill()
        process.wait()
    assert len(list((root / "tmp").iterdir())) == 1
    ImageStore(root)
    assert list((root / "tmp").iterdir()) == []


def test_many_at_once(tmp_path: Path) -> None:
    """Imports, lists and garbage collection by several threads, each with its own store: no error, nothing lost."""
    errors: list[AgentError | OSError] = []

    def work(number: int) -> None:
        store = ImageStore(tmp_path)
        try:
            for turn in range(5):
                image = store.import_tar(
                    f"n{number}", CONFIG, [tars.make((tars.member("f"), b"%d %d" % (number, turn)))]
                )
                assert store.get(f"n{number}") == image
                store.gc([])
                store.list()
        except (AgentError, OSError) as exc:
            errors.append(exc)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    left = [image.name for image in ImageStore(tmp_path).list()]
    assert [name for name in left if "@" not in name] == [f"n{number}:latest" for number in range(4)]
    assert len(left) == 4 * 5  # the earlier turns' images are there without a tag


def test_the_store_keeps_others_out(store: ImageStore, tmp_path: Path) -> None:
    """Layers hold setuid programs of strangers: only root may walk into them."""
    store.import_tar("web", CONFIG, [TAR])
    assert (tmp_path / "images" / "layers").stat().st_mode & 0o077 == 0
    assert os.access(store.layer_path(DIFF_ID), os.R_OK)
