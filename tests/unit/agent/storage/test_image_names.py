"""Names of images come, move and go; what nothing names any more goes with them, and nothing else."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from agent.errors import InvalidArgument, NotFound, StorageError, Unsupported, WrongState
from agent.storage import names
from agent.storage.images import LARGEST_DOCUMENT, Image, ImageConfig, ImageStore
from agent.storage.manifest import Document, Healthcheck, History, read, write
from tests.unit.agent.storage import tars

pytestmark = pytest.mark.unit

REPOSITORY = Path(__file__).parents[4]


def tar(text: str) -> bytes:
    return tars.make((tars.member("f"), text.encode()))


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "images")


def names_of(store: ImageStore) -> list[str]:
    return [image.name for image in store.list()]


@pytest.mark.parametrize(
    ("typed", "full"),
    [
        ("debian", "debian:latest"),
        ("docker.io/library/debian:12", "debian:12"),
        ("docker.io/team/web", "team/web:latest"),
        ("localhost:5000/web", "localhost:5000/web:latest"),
    ],
)
def test_short_names_are_written_out(typed: str, full: str) -> None:
    """Docker's own registry is not written, the tag latest is."""
    assert names.checked(typed) == full


def test_an_image_whose_tag_another_one_takes_stays(store: ImageStore) -> None:
    """It is found by its digest, has no tag, and gets a new one with `tag`."""
    old = store.import_tar("web", ImageConfig(), [tar("old")])
    new = store.import_tar("web", ImageConfig(), [tar("new")])
    assert names_of(store) == ["web:latest", f"web:latest@{old.digest}"]
    assert store.get("web").digest == new.digest
    assert store.get(old.digest).layers == old.layers
    assert store.tag(old.digest[7:20], "web:old").name == "web:old"
    assert names_of(store) == ["web:latest", "web:old"]
    with pytest.raises(InvalidArgument):
        store.tag("web", "web@" + old.digest)


def test_a_name_of_several_goes_alone(store: ImageStore) -> None:
    """With other names left nothing is deleted, whoever uses the image."""
    image = store.import_tar("web", ImageConfig(), [tar("x")])
    store.tag("web", "alias")
    gone = store.forget("web", force=False, users=lambda _: ["web1"])
    assert (gone.untagged, gone.deleted, gone.layers) == (("web:latest",), (), ())
    assert store.get("alias").digest == image.digest


def test_the_last_name_of_a_used_image_goes_only_with_force(store: ImageStore) -> None:
    """Refused with the containers' names; with force the image stays without a tag, for they need it to move."""
    image = store.import_tar("web", ImageConfig(), [tar("x")])
    asked: list[str] = []

    def users(digest: str) -> list[str]:
        asked.append(digest)
        return ["web2", "web1"]

    with pytest.raises(WrongState, match="used by web1, web2") as caught:
        store.forget("web", force=False, users=users)
    assert "--force" in caught.value.hint
    assert store.forget("web", force=True, users=users).untagged == ("web:latest",)
    assert asked == [image.digest] * 2
    assert names_of(store) == [f"web:latest@{image.digest}"]
    with pytest.raises(WrongState):
        store.forget(image.digest, force=True, users=users)
    assert store.gc([]) == []
    gone = store.forget(image.digest, force=False)
    assert (gone.deleted, gone.layers) == ((image.digest,), image.layers)
    assert store.gc([]) == list(image.layers)


def test_held_layers_outlive_a_collection(store: ImageStore, tmp_path: Path) -> None:
    """Layers without an image stay while their holder lives, also one in another store object of the same directory."""
    with store.hold() as hold:
        layer = store.add_layer([tar("x")], hold)
        assert ImageStore(tmp_path / "images").gc([]) == []
        assert store.missing([layer.diff_id]) == []
    assert store.gc([]) == [layer.diff_id]
    assert store.missing([layer.diff_id]) == [layer.diff_id]


def test_a_hold_ends_with_its_process(store: ImageStore, tmp_path: Path) -> None:
    """A holder that is killed lets go: the next collection takes its layers."""
    image = store.import_tar("web", ImageConfig(), [tar("x")])
    store.remove("web", force=False)
    script = (
        "import sys, time; from pathlib import Path; from agent.storage.images import ImageStore\n"
        "with ImageStore(Path(sys.argv[1])).hold(sys.argv[2]): print('held', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "images"), image.layers[0]],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    with process.stdout as out:
        assert out.readline() == b"held\n"
        assert store.gc([]) == []
        process.kill()
        process.wait()
    assert store.gc([]) == list(image.layers)


def test_what_begins_to_use_a_layer_during_a_collection_keeps_it(store: ImageStore) -> None:
    """Users are asked again once the layers are out of the way: who came in between gets them back whole."""
    image = store.import_tar("web", ImageConfig(), [tar("x")])
    store.remove("web", force=False)
    answers = [set[str](), set(image.layers)]
    assert store.collect(lambda: answers.pop(0)).layers == ()
    assert (store.layer_path(image.layers[0]) / "f").read_bytes() == b"x"
    archive, size = store.open_layer(image.layers[0])
    with archive:
        assert archive.read() == tar("x") and size == len(tar("x"))
    collected = store.collect(lambda: set[str]())
    assert collected.layers == image.layers
    assert collected.freed_bytes > len(tar("x"))


def test_documents_are_kept_byte_for_byte(store: ImageStore, tmp_path: Path) -> None:
    """What we do not know of other tools' configs survives, here and on the host that the image moves to."""
    with store.hold() as hold:
        layer = store.add_layer([tar("x")], hold)
        document = json.dumps(
            {
                "rootfs": {"type": "layers", "diff_ids": [layer.diff_id, layer.diff_id]},
                "config": {"Cmd": ["a"], "Unknown": {"x": 1}, "Healthcheck": {"Test": ["CMD", "t"], "Interval": 5}},
                "created": "2023-11-14T22:13:20+00:00",
                "architecture": "amd64",
            },
            indent=3,
        )
        image = store.add_image(["web", "web:2"], document, origin="r.example/web@sha256:" + "1" * 64)
    assert image.document == document
    assert image.layers == (layer.diff_id,)  # one that comes twice counts once
    assert image.created_unix_ns == 1_700_000_000 * 10**9
    assert image.config.healthcheck == Healthcheck(test=("CMD", "t"), interval_ns=5)
    assert store.get("r.example/web@sha256:" + "1" * 64).digest == image.digest
    other = ImageStore(tmp_path / "other")
    archive, _ = store.open_layer(layer.diff_id)
    with archive, other.receive_layer(layer.diff_id) as writer:
        writer.write(archive.read())
        writer.commit()
    other.register(Image.from_dict(json.loads(json.dumps(asdict(image)))))
    assert other.get("web") == image


def test_an_image_without_a_tag_is_registered_without_one(store: ImageStore, tmp_path: Path) -> None:
    """A move does not give a tag back that the image has lost."""
    old = store.import_tar("web", ImageConfig(), [tar("old")])
    store.import_tar("web", ImageConfig(), [tar("new")])
    other = ImageStore(tmp_path / "other")
    other.import_tar("tmp", ImageConfig(), [tar("old")])
    other.remove("tmp", force=False)
    other.register(store.get(old.digest))
    assert names_of(other) == [f"web:latest@{old.digest}"]


def test_an_image_of_missing_layers_is_refused(store: ImageStore) -> None:
    """add_image names the layers that are not here; a document that is none is an invalid argument."""
    with pytest.raises(NotFound, match="1111"):
        store.add_image(["web"], '{"rootfs": {"diff_ids": ["sha256:' + "1" * 64 + '"]}}')
    for bad in ("{}", "[]", "x", '{"rootfs": {"diff_ids": [1]}}', '{"rootfs": {"diff_ids": []}, "created": "noon"}'):
        with pytest.raises(InvalidArgument):
            store.add_image(["web"], bad)
    with pytest.raises(Unsupported):
        store.add_image(["web"], " " * (LARGEST_DOCUMENT + 1))
    assert store.list() == []


def test_an_archive_with_other_bytes_is_called_that(store: ImageStore) -> None:
    """Both digests are checked, and a flipped bit is reported as a wrong digest even where it breaks the tar first."""
    good = tar("x")
    digest = f"sha256:{hashlib.sha256(good).hexdigest()}"
    with store.hold() as hold:
        for data in (good[:-512] + b"x" * 512, b"\xff" * 512 + good[512:]):
            with pytest.raises(StorageError, match=f"blob {digest} arrived as sha256:"):
                store.add_layer([data[:700], data[700:]], hold, blob=digest)
        with pytest.raises(StorageError, match=r"layer sha256:0+ arrived as"):
            store.add_layer([good], hold, diff_id="sha256:" + "0" * 64, blob=digest)
    assert store.missing([digest]) == [digest]


def test_a_written_document_is_read_back() -> None:
    """Config, layers and history survive; a history that does not fit the layers is refused."""
    document = Document(
        config=ImageConfig(
            cmd=("c",),
            env=("A=1",),
            exposed_ports=("80/tcp",),
            volumes=("/v",),
            healthcheck=Healthcheck(test=("NONE",), retries=2),
            shell=("/bin/bash", "-c"),
            on_build=("RUN x",),
        ),
        layers=("sha256:" + "1" * 64,),
        created_unix_ns=1_700_000_000_123_456_789,
        history=(
            History(created_unix_ns=1, created_by="a"),
            History(created_by="b", empty=True, comment="c", author="d"),
        ),
        architecture="arm64",
        author="me",
    )
    assert read(write(document)) == document
    with pytest.raises(InvalidArgument, match="history with 1 layers"):
        write(Document(config=ImageConfig(), layers=(), created_unix_ns=0, history=(History(created_by="a"),)))
