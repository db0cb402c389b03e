"""Images from and to registries, through skopeo: only the layers that are missing, several at once, each one checked.

Pull: `skopeo inspect --raw` gives manifests as they are, and `skopeo experimental-image-proxy`, skopeo's interface for programs,
gives blobs over pipes, straight into the store. Push: `skopeo copy` from an OCI layout of hard links.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import select
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

from agent.errors import InvalidArgument, StorageError, TransferError
from agent.storage import manifest, names, oci, save, skopeo
from agent.storage.images import Image, ImageStore
from agent.storage.ingest import LayerProgress, LayerSource, Report, Source
from agent.storage.layerstore import CHUNK_BYTES
from agent.storage.skopeo import Access, Passing

T = TypeVar("T")
RETRY_DELAYS_S = (1.0, 3.0, 9.0)
STALLED_S = 60.0
PUSH_STALLED_S = 300.0  # a registry may take its time to put away a large layer
_POLL_S = 0.2
_REPLY_BYTES = 32 << 10
_LARGEST_CONFIG = 32 << 20


def find(name: str, access: Access) -> Source:
    """What the registry has under `name`, for this host's platform: its config, and layers that are fetched when read.

    Raises NotFound, Unsupported, TransferError (its code says whether it was refused or not reached).
    """
    repository, tag, digest = _parse(name)
    reference = f"{repository}@{digest}" if digest else f"{repository}:{tag}"

    def raw(reference: str) -> bytes:
        return retried(lambda: skopeo.run("inspect", access, "--raw", f"docker://{reference}", what=name))

    data = raw(reference)
    if digest and manifest.digest_of(data) != digest:
        raise StorageError(f"{name}: the registry sent a manifest with the digest {manifest.digest_of(data)}")
    origin = f"{repository}@{manifest.digest_of(data)}"
    if oci.is_index(data, "", name):
        chosen = oci.choose(oci.index(data, name), name)
        data = raw(f"{repository}@{chosen.digest}")
        if manifest.digest_of(data) != chosen.digest:
            raise StorageError(f"{name}: {chosen.digest} arrived as {manifest.digest_of(data)}")
    found = oci.manifest_of(data, name)
    blobs = Blobs(f"{repository}@{manifest.digest_of(data)}", access, name)
    if found.config.size > _LARGEST_CONFIG:
        raise StorageError(f"{name}: its config has {found.config.size} bytes: that is no document of an image")
    document = b"".join(blobs.read(found.config))
    if manifest.digest_of(document) != found.config.digest:
        raise StorageError(f"{name}: its config {found.config.digest} arrived as {manifest.digest_of(document)}")
    try:
        text = document.decode()
    except UnicodeDecodeError as exc:
        raise StorageError(f"{name}: its config is no text: {exc}") from exc
    return Source(
        what=name,
        tags=() if digest else (f"{repository}:{tag}",),
        document=text,
        layers=tuple(
            LayerSource(size=layer.size, blob=layer.digest, chunks=lambda layer=layer: blobs.read(layer))  # type: ignore[misc]
            for layer in found.layers
        ),
        origin=origin,
    )


def retried(work: Callable[[], T]) -> T:
    """What `work` returns; tried again, later and later, as long as its error is a passing one."""
    for delay_s in RETRY_DELAYS_S:
        try:
            return work()
        except Passing:
            time.sleep(delay_s)
    return work()


class Blobs:
    """Blobs of one image in a registry. Any number of readers at once; each has a process of its own."""

    def __init__(self, reference: str, access: Access, what: str) -> None:
        self._reference, self._access, self._what = reference, access, what

    def read(self, blob: oci.Descriptor) -> Iterator[bytes]:
        """The bytes, which the caller checks. A connection that breaks is made again: what had come is passed over, so that
        the reader goes on where it was. (Whether it is sent again is skopeo's affair: see docs/adr/0008.)
        """
        done = 0
        delays_s = iter(RETRY_DELAYS_S)
        while True:
            try:
                for chunk in self._once(blob, done):
                    done += len(chunk)
                    yield chunk
                return
            except Passing as exc:
                delay_s = next(delays_s, None)
                if delay_s is None:
                    raise TransferError(
                        f"{exc.message}, {len(RETRY_DELAYS_S) + 1} times; {done} of {blob.size} bytes had come",
                        hint="pull again: layers that are complete are not fetched again",
                        code=skopeo.UNREACHABLE,
                        touched="nothing",
                    ) from exc
                time.sleep(delay_s)

    def _once(self, blob: oci.Descriptor, skip: int) -> Iterator[bytes]:
        with _Proxy(self._reference, self._access, self._what) as proxy:
            for chunk in proxy.blob(blob):
                if skip >= len(chunk):
                    skip -= len(chunk)
                    continue
                yield chunk[skip:]
                skip = 0


class _Proxy:
    """One skopeo process with one image open. Its protocol: JSON over SOCK_SEQPACKET, bytes over pipes that come with it."""

    def __init__(self, reference: str, access: Access, what: str) -> None:
        self._reference, self._access, self._what = reference, access, what
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> _Proxy:
        with contextlib.ExitStack() as stack:
            ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            stack.enter_context(ours)
            with theirs:
                options, descriptors = stack.enter_context(skopeo.options(self._access))
                argv = [skopeo.program(), "experimental-image-proxy", *options, "--sockfd", str(theirs.fileno())]
                self._process = subprocess.Popen(
                    argv,
                    pass_fds=(theirs.fileno(), *descriptors),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
            stack.callback(self._end)
            self._socket = ours
            ours.settimeout(2 * STALLED_S)  # of each answer
            self._ask("Initialize")
            self._image = self._ask("OpenImage", f"docker://{self._reference}")["value"]
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def blob(self, blob: oci.Descriptor) -> Iterator[bytes]:
        """Raises Passing where it ended early."""
        reply = self._ask("GetBlob", self._image, blob.digest, blob.size)
        if len(reply["fds"]) != 1:
            raise TransferError(f"{self._what}: skopeo gave no pipe for {blob.digest}", touched="nothing")
        failure: list[Exception] = []

        def finish() -> None:
            # Answers when all is in the pipe, and closes it: so it is asked for while we read.
            self._socket.settimeout(None)
            try:
                self._ask("FinishPipe", reply["pipeid"])
            except (TransferError, StorageError) as exc:
                failure.append(exc)

        finisher = threading.Thread(target=finish, name="skopeo-finish", daemon=True)
        with open(reply["fds"][0], "rb", buffering=0) as pipe:
            finisher.start()
            try:
                while True:
                    # skopeo itself waits for ever where a server stops sending without ending the connection.
                    if not select.select([pipe], [], [], STALLED_S)[0]:
                        raise Passing(
                            f"{self._what}: nothing came for {STALLED_S:g} s",
                            code=skopeo.UNREACHABLE,
                            touched="nothing",
                        )
                    if not (chunk := pipe.read(CHUNK_BYTES)):
                        break
                    yield chunk
            except BaseException:
                self._process.kill()  # the finisher waits for an answer that nobody will read
                raise
            finally:
                finisher.join()
        if failure:
            raise failure[0]

    def _ask(self, method: str, *arguments: object) -> dict[str, Any]:
        try:
            self._socket.sendall(json.dumps({"method": method, "args": arguments}).encode())
            data, fds, _, _ = socket.recv_fds(self._socket, _REPLY_BYTES, 1)
        except OSError as exc:
            raise Passing(f"{self._what}: skopeo has ended: {exc}", touched="nothing") from exc
        for fd in fds:
            os.set_inheritable(fd, False)  # Python 3.11 drops the flag that would have said so
        if not data:
            raise Passing(f"{self._what}: skopeo has ended", touched="nothing")
        reply: dict[str, Any] = json.loads(data)
        if not reply["success"]:
            for fd in fds:
                os.close(fd)
            text = str(reply["error"])
            if re.search(r"corrupted|expected \d+ bytes in blob", text):
                raise StorageError(f"{self._what}: {text}", hint="the registry's copy is damaged: push it anew")
            raise skopeo.meaning(text, self._what)
        return {**reply, "fds": fds}

    def _end(self) -> None:
        self._process.kill()
        self._process.wait()


def push(store: ImageStore, image: Image, destination: str, access: Access, report: Report) -> str:
    """Send the image; what the registry has is not sent again. Returns the manifest's digest there.

    Tried again, later and later, when the connection breaks; layers that had arrived are then there. Raises as `find`.
    """
    repository, tag, digest = _parse(destination)
    if digest:
        raise InvalidArgument(
            f"{destination} has a digest: a push names a tag", hint="migrate push web:1 registry/web:1"
        )
    saved = save.describe(store, image)
    for layer in saved.layers:
        report(LayerProgress(layer=layer.diff_id, text="waiting", total_bytes=layer.blob_bytes))
    with store.hold(*image.layers), store.workspace() as work:
        _layout(store, saved, work / "oci")

        def once() -> str:
            with skopeo.options(access, "dest-") as (given, descriptors):
                target = f"docker://{repository}:{tag}"
                argv = [skopeo.program(), "copy", *given, f"--digestfile={work}/digest", f"oci:{work}/oci", target]
                with (work / "said").open("wb") as said:
                    process = subprocess.Popen(
                        argv, pass_fds=descriptors, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=said
                    )
                    try:
                        _watch(process, {layer.blob: layer for layer in saved.layers}, report)
                    finally:
                        process.kill()
                        process.wait()
                if process.returncode != 0:
                    raise skopeo.meaning((work / "said").read_text(errors="replace"), destination)
                return (work / "digest").read_text().strip()

        found = retried(once)
    for layer in saved.layers:
        report(
            LayerProgress(layer=layer.diff_id, text="done", done_bytes=layer.blob_bytes, total_bytes=layer.blob_bytes)
        )
    if not names.is_digest(found):
        raise TransferError(f"{destination}: skopeo says that its digest is {found!r}", touched="something")
    store.add_origin(image.digest, f"{repository}@{found}")
    return found


def _layout(store: ImageStore, saved: save.Saved, path: Path) -> None:
    blobs = path / "blobs" / "sha256"
    blobs.mkdir(parents=True)
    for layer in {layer.blob: layer for layer in saved.layers}.values():
        os.link(store.blob_path(layer.blob), blobs / names.hex_of(layer.blob))
    for data in (saved.document, saved.manifest):
        (blobs / hashlib.sha256(data).hexdigest()).write_bytes(data)
    entry = {"mediaType": manifest.MEDIA_MANIFEST, "digest": saved.digest, "size": len(saved.manifest)}
    (path / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [entry]}))
    (path / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')


def _watch(process: subprocess.Popen[bytes], layers: dict[str, Any], report: Report) -> None:
    """Until it ends: how far it has read each layer's file, which its own output does not say. Passing if it stands still."""
    before: dict[str, int] = {}
    moved_s = time.monotonic()
    while True:
        positions = _positions(process.pid)
        if positions != before:
            before, moved_s = positions, time.monotonic()
        elif time.monotonic() - moved_s > PUSH_STALLED_S:
            raise Passing(f"nothing was sent for {PUSH_STALLED_S:g} s", code=skopeo.UNREACHABLE, touched="nothing")
        for blob, done in positions.items():
            if layer := layers.get(blob):
                report(
                    LayerProgress(layer=layer.diff_id, text="sending", done_bytes=done, total_bytes=layer.blob_bytes)
                )
        try:
            process.wait(_POLL_S)
            return
        except subprocess.TimeoutExpired:
            continue


def _positions(pid: int) -> dict[str, int]:
    """Digest of each blob that the process has open -> its position in the file."""
    found: dict[str, int] = {}
    try:
        descriptors = list(Path(f"/proc/{pid}/fd").iterdir())
    except OSError:
        return found  # it has ended
    for link in descriptors:
        try:
            path = link.readlink()
            if path.parent.name != "sha256":
                continue
            info = Path(f"/proc/{pid}/fdinfo/{link.name}").read_text()
        except OSError:
            continue  # closed meanwhile
        found[f"sha256:{path.name}"] = int(info.partition("pos:")[2].split()[0])
    return found


def _parse(name: str) -> tuple[str, str, str]:
    """Repository, tag (with a digest: "") and digest. Raises InvalidArgument."""
    base, at, digest = name.partition("@")
    if at and not names.is_digest(digest):
        raise InvalidArgument(f"{name!r}: {digest!r} is no digest", hint="sha256: and 64 hex digits")
    repository, tag = names.split(names.checked(base))
    return repository, "" if at else tag, digest
