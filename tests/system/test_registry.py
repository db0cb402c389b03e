"""Pull and push against a real registry: what is transferred, what is checked, what happens when it breaks or refuses."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.errors import AgentError, InvalidArgument, NotFound, StorageError, TransferError, Unsupported
from agent.storage import ingest, manifest
from agent.storage import registry as registries
from agent.storage.images import Image, ImageConfig, ImageStore
from agent.storage.ingest import LayerProgress
from agent.storage.manifest import Document, History
from agent.storage.skopeo import Access
from tests.system import registry_host
from tests.system.registry_host import PASSWORD, USER, Breaker, Registry
from tests.unit.agent.storage import tars

pytestmark = pytest.mark.system

OPEN = Access(unverified=True)
LAYERS = [tars.make((tars.member(f"file{number}"), os.urandom(4_000_000))) for number in range(3)]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Registry]:
    with registry_host.registry(tmp_path_factory.mktemp("registry") / "r") as made:
        yield made


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registries, "RETRY_DELAYS_S", (0.05, 0.05, 0.05))


@pytest.fixture
def store(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "here")


@pytest.fixture
def other(tmp_path: Path) -> ImageStore:
    return ImageStore(tmp_path / "there")


def make(store: ImageStore, tag: str, *archives: bytes) -> Image:
    with store.hold() as hold:
        layers = tuple(store.add_layer([archive], hold).diff_id for archive in archives)
        history = tuple(History(created_by=f"step {number}") for number in range(len(layers)))
        config = ImageConfig(cmd=("serve",), on_build=("RUN x",))
        document = Document(config=config, layers=layers, created_unix_ns=10**18, history=history)
        return store.add_image([tag], manifest.write(document))


def push(store: ImageStore, image: Image, name: str, access: Access = OPEN) -> tuple[str, list[LayerProgress]]:
    seen: list[LayerProgress] = []
    return registries.push(store, image, name, access, seen.append), seen


def pull(store: ImageStore, name: str, access: Access = OPEN) -> tuple[Image, list[LayerProgress]]:
    seen: list[LayerProgress] = []
    source = registries.find(name, access)
    with store.hold() as hold:
        ingest.fetch(store, source, hold, seen.append)
        return ingest.record(store, source), seen


def texts(seen: list[LayerProgress], layer: str) -> list[str]:
    """What was said of the layer, repetitions left out."""
    said = [one.text for one in seen if one.layer == layer]
    return [text for number, text in enumerate(said) if number == 0 or said[number - 1] != text]


def test_an_image_goes_to_a_registry_and_back(registry: Registry, store: ImageStore, other: ImageStore) -> None:
    """The same image, config byte for byte, on the other host; both know it by the registry's digest; history stays."""
    name = f"{registry.name}/team/web:1"
    image = make(store, "web:1", *LAYERS)
    digest, sent = push(store, image, name)
    pulled, got = pull(other, name)
    assert (pulled.digest, pulled.document, pulled.name) == (image.digest, image.document, name)
    assert pulled.config.on_build == ("RUN x",)  # Docker's own field, which a conversion to OCI's would lose
    assert pulled.repo_digests == store.get(image.digest).repo_digests == (f"{registry.name}/team/web@{digest}",)
    assert other.get(f"{registry.name}/team/web@{digest}").digest == image.digest
    for layer in image.layers:
        assert texts(sent, layer)[0] == "waiting" and texts(sent, layer)[-1] == "done"
        assert texts(got, layer) == ["waiting", "fetching", "done"]
    assert (other.layer_path(image.layers[2]) / "file2").stat().st_size == 4_000_000
    by_digest, _ = pull(other, f"{registry.name}/team/web@{digest}")
    assert by_digest.digest == image.digest


def test_only_missing_layers_travel(registry: Registry, store: ImageStore, other: ImageStore) -> None:
    """A second image on the same base: the base is neither fetched nor sent again."""
    # New ones: what another repository of the registry has is not sent either.
    below, above = (tars.make((tars.member(name), os.urandom(300_000))) for name in ("below", "above"))
    base, web = make(store, "base:1", below), make(store, "web:1", below, above)
    push(store, base, f"{registry.name}/only:base")
    pull(other, f"{registry.name}/only:base")
    uploads = registry.asked("PATCH", "/only/blobs/uploads")
    push(store, web, f"{registry.name}/only:web")
    assert registry.asked("PATCH", "/only/blobs/uploads") == uploads + 2  # the new layer and the config
    blob = other.layer(base.layers[0]).blob
    before = registry.asked("GET", blob)
    assert before >= 1
    _, seen = pull(other, f"{registry.name}/only:web")
    assert texts(seen, base.layers[0]) == ["here"]
    assert registry.asked("GET", blob) == before


def test_a_connection_that_dies_half_way_is_made_again(
    registry: Registry, store: ImageStore, other: ImageStore, quick: None
) -> None:
    """The layer's reader goes on where it was; skopeo asks for the blob from its beginning, or, if new, for the rest."""
    image = make(store, "web:1", LAYERS[0])
    push(store, image, f"{registry.name}/broken:1")
    breaker = Breaker(registry.port, cuts=2, after_bytes=1_500_000)
    try:
        pulled, seen = pull(other, f"127.0.0.1:{breaker.port}/broken:1")
    finally:
        breaker.close()
    assert pulled.digest == image.digest
    assert breaker.cuts < 0  # both cuts were made, and then one connection went through
    bytes_read = [one.done_bytes for one in seen if one.text == "fetching"]
    assert bytes_read == sorted(bytes_read)  # nothing was unpacked twice
    assert (other.layer_path(image.layers[0]) / "file0").read_bytes() == LAYERS[0][512 : 512 + 4_000_000]


def test_a_connection_that_stalls_is_given_up_and_made_again(
    registry: Registry, store: ImageStore, other: ImageStore, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that stops sending without a word does not hold a pull for ever."""
    monkeypatch.setattr(registries, "STALLED_S", 1.0)
    image = make(store, "web:1", LAYERS[1])
    push(store, image, f"{registry.name}/stalled:1")
    breaker = Breaker(registry.port, cuts=1, after_bytes=1_500_000, stall=True)
    try:
        assert pull(other, f"127.0.0.1:{breaker.port}/stalled:1")[0].digest == image.digest
    finally:
        breaker.close()
    assert breaker.cuts < 0  # it stalled once, and another connection went past that point


def test_a_pull_that_gives_up_keeps_whole_layers(
    registry: Registry, store: ImageStore, other: ImageStore, quick: None
) -> None:
    """The error says how far it came and what to do; the next pull fetches only what is missing."""
    image = make(store, "web:1", tars.make((tars.member("small"), b"s" * 50_000)), LAYERS[1])
    push(store, image, f"{registry.name}/giveup:1")
    breaker = Breaker(registry.port, cuts=100, after_bytes=1_000_000)
    try:
        with pytest.raises(TransferError, match=r"4 times; \d+ of \d+ bytes had come") as caught:
            pull(other, f"127.0.0.1:{breaker.port}/giveup:1")
    finally:
        breaker.close()
    assert caught.value.code == "registry.unreachable" and "pull again" in caught.value.hint
    assert other.list() == []
    assert other.missing(image.layers) == [image.layers[1]]
    _, seen = pull(other, f"{registry.name}/giveup:1")
    assert texts(seen, image.layers[0]) == ["here"]


def test_a_push_goes_on_after_a_broken_connection(
    registry: Registry, store: ImageStore, other: ImageStore, quick: None
) -> None:
    """Layers that had arrived are not sent again, and the registry ends with the whole image."""
    image = make(store, "web:1", LAYERS[0], LAYERS[2])
    breaker = Breaker(registry.port, cuts=1, after_bytes=2_000_000, upload=True)
    try:
        push(store, image, f"127.0.0.1:{breaker.port}/pushed:1")
    finally:
        breaker.close()
    assert breaker.cuts < 0
    assert pull(other, f"{registry.name}/pushed:1")[0].digest == image.digest


def test_a_corrupt_layer_is_refused(registry: Registry, store: ImageStore, other: ImageStore, tmp_path: Path) -> None:
    """One flipped bit in the registry's copy: a clear error, no image, and nothing of that layer."""
    image = make(store, "web:1", tars.make((tars.member("x"), os.urandom(100_000))))
    push(store, image, f"{registry.name}/corrupt:1")
    good, _ = pull(ImageStore(tmp_path / "third"), f"{registry.name}/corrupt:1")
    blob = registry.blob(ImageStore(tmp_path / "third").layer(good.layers[0]).blob)
    data = bytearray(blob.read_bytes())
    data[50_000] ^= 1
    blob.write_bytes(data)
    with pytest.raises(StorageError, match=r"corrupt|arrived as"):
        pull(other, f"{registry.name}/corrupt:1")
    assert other.list() == [] and other.missing(image.layers) == list(image.layers)
    assert not list((tmp_path / "there" / "tmp").iterdir())


def test_what_is_not_there_is_not_found(registry: Registry, other: ImageStore, store: ImageStore) -> None:
    """An unknown name, an unknown tag and a push by digest; a port where nobody listens."""
    for name in (f"{registry.name}/nothing:1", f"{registry.name}/team/web:none"):
        with pytest.raises(NotFound, match="has no such image"):
            pull(other, name)
    with pytest.raises(InvalidArgument):
        push(store, make(store, "web:1", LAYERS[0]), f"{registry.name}/web@sha256:" + "0" * 64)
    with pytest.raises(TransferError, match="cannot be reached"):
        pull(other, f"127.0.0.1:{registry_host.free_port()}/web:1")


def test_the_hosts_platform_is_picked_from_a_list(registry: Registry, store: ImageStore, other: ImageStore) -> None:
    """A manifest list in the registry: this host's image, and where there is none the error says which there are."""
    from tests.unit.agent.storage.archives import Layout, config, digest

    tar = tars.make((tars.member("mine"), b"mine"))
    for case, architectures in (("both", ("s390x", manifest.host_architecture())), ("foreign", ("s390x", "ppc64le"))):
        layout = Layout()
        entries = []
        for architecture in architectures:
            document = config(digest(tar), architecture=architecture)
            platform = {"architecture": architecture, "os": "linux"}
            entries.append(
                layout.manifest(document, [("application/vnd.oci.image.layer.v1.tar", tar)], platform=platform)
            )
        layout.entries.append(layout.index(entries))
        path = Path(str(store.blob_path("sha256:" + "0" * 64).parents[3])) / f"{case}.tar"
        path.write_bytes(layout.tar())
        argv = ["skopeo", "copy", "--all", "--dest-tls-verify=false", f"oci-archive:{path}"]
        subprocess.run([*argv, f"docker://{registry.name}/multi:{case}"], check=True, capture_output=True)
    assert pull(other, f"{registry.name}/multi:both")[0].layers == (digest(tar),)
    with pytest.raises(Unsupported, match="it has linux/ppc64le, linux/s390x"):
        pull(other, f"{registry.name}/multi:foreign")


def test_a_registry_with_passwords(tmp_path: Path, store: ImageStore, other: ImageStore) -> None:
    """Refused without and with a wrong password, which is named nowhere; served with the right one; login only tries."""
    with registry_host.registry(tmp_path / "r", password=True) as registry:
        image = make(store, "web:1", LAYERS[0])
        name = f"{registry.name}/private:1"
        for credentials in (b"", registry.credentials("wrong horse")):
            access = Access(unverified=True, credentials=credentials)
            for work in (lambda: push(store, image, name, access), lambda: pull(other, name, access)):  # noqa: B023
                with pytest.raises(TransferError) as caught:
                    work()
                assert caught.value.code == "registry.denied"
                assert caught.value.hint == f"migrate login {registry.name}"
                assert "wrong horse" not in caught.value.message
        access = Access(unverified=True, credentials=registry.credentials())
        assert PASSWORD not in repr(access) and "auth" not in repr(access)
        push(store, image, name, access)
        assert pull(other, name, access)[0].digest == image.digest
        from agent.storage import skopeo

        skopeo.login(registry.name, USER, PASSWORD.encode(), OPEN)
        with pytest.raises(TransferError) as caught:
            skopeo.login(registry.name, USER, b"wrong", OPEN)
        assert caught.value.code == "registry.denied"
        for bad in ("", "a/b", "-x"):
            with pytest.raises(InvalidArgument):
                skopeo.login(bad, USER, b"x", OPEN)


def test_credentials_are_in_no_argument_and_in_no_file(
    tmp_path: Path, store: ImageStore, other: ImageStore, quick: None
) -> None:
    """While a pull runs, neither the command line nor the environment of any process nor the store holds the secret."""
    with registry_host.registry(tmp_path / "r", password=True) as registry:
        image = make(store, "web:1", LAYERS[0])
        access = Access(unverified=True, credentials=registry.credentials())
        push(store, image, f"{registry.name}/secret:1", access)
        secret = registry.credentials().split(b'"auth": "')[1].split(b'"')[0]
        found: list[str] = []
        seen = 0

        def look() -> None:
            nonlocal seen
            for process in Path("/proc").glob("[0-9]*"):
                try:
                    line, environment = (process / "cmdline").read_bytes(), (process / "environ").read_bytes()
                except OSError:
                    continue
                seen += b"experimental-image-proxy" in line
                if any(one in line + environment for one in (secret, PASSWORD.encode())):
                    found.append(str(process))

        source = registries.find(f"{registry.name}/secret:1", access)
        for number, _ in enumerate(source.layers[0].chunks()):
            if number == 1:
                look()
        files = [path for path in (tmp_path / "there").rglob("*") if path.is_file() and secret in path.read_bytes()]
        assert seen and not found and not files


def test_certificates_are_checked(tmp_path: Path, store: ImageStore, other: ImageStore) -> None:
    """An unknown certificate is refused, with the certificate at hand or unverified it is not; http is not taken for https."""
    pair = registry_host.certificate(tmp_path)
    with registry_host.registry(tmp_path / "r", certificate=pair) as registry:
        image = make(store, "web:1", LAYERS[0])
        name = f"{registry.name}/tls:1"
        with pytest.raises(TransferError, match="certificate") as caught:
            push(store, image, name, Access())
        assert "--cert" in caught.value.hint
        trusting = Access(certificates=pair[0].read_bytes())
        push(store, image, name, trusting)
        assert pull(other, name, trusting)[0].digest == image.digest
        assert pull(other, name)[0].digest == image.digest


def test_http_needs_a_word(registry: Registry, other: ImageStore) -> None:
    """A registry without TLS is not spoken to unless the caller says so."""
    with pytest.raises(TransferError, match="speaks http") as caught:
        pull(other, f"{registry.name}/team/web:1", Access())
    assert caught.value.hint == "--tls-verify=false"


def test_layers_come_in_parallel(registry: Registry, store: ImageStore, other: ImageStore) -> None:
    """Several layers are under way at the same time."""
    image = make(store, "web:1", *LAYERS)
    push(store, image, f"{registry.name}/parallel:1")
    source = registries.find(f"{registry.name}/parallel:1", OPEN)
    together = threading.Barrier(2, timeout=30)
    met: set[str] = set()

    def report(progress: LayerProgress) -> None:
        if progress.text == "fetching" and progress.layer not in met and len(met) < 2:
            met.add(progress.layer)
            together.wait()  # breaks the pull if the second layer never starts before this one ends

    with other.hold() as hold:
        ingest.fetch(other, source, hold, report)
    assert other.missing(image.layers) == [] and len(met) == 2


def test_a_host_without_skopeo_says_what_to_install(other: ImageStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The error names the package."""
    monkeypatch.setenv("PATH", "/nonexistent")
    with pytest.raises(AgentError, match="skopeo is not installed") as caught:
        pull(other, "debian:12")
    assert "apt-get install" in caught.value.hint
