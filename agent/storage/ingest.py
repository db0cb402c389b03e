"""From an image that lies somewhere else to one in the store: only the layers that are missing, each one checked.

Where it lies, an archive or a registry, is behind `Source`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from agent.errors import StorageError
from agent.storage import manifest, oci
from agent.storage.images import Image, ImageStore
from agent.storage.layerstore import Hold

PARALLEL_LAYERS = 3


@dataclass(frozen=True, kw_only=True)
class LayerProgress:
    """`layer`: diff id, or a word for what comes before the layers. `text`: "waiting", "fetching", "here", "done"."""

    layer: str
    text: str
    done_bytes: int = 0
    total_bytes: int = 0


Report = Callable[[LayerProgress], None]


@dataclass(frozen=True, kw_only=True)
class LayerSource:
    """`blob`: digest of the archive, "" where only the diff id is known. `chunks` opens it anew with each call."""

    size: int
    chunks: Callable[[], Iterator[bytes]]
    blob: str = ""


@dataclass(frozen=True, kw_only=True)
class Source:
    """An image that is to be taken in. `what`: for messages; `origin`: "REPOSITORY@DIGEST" in a registry, or ""."""

    what: str
    tags: tuple[str, ...]
    document: str
    layers: tuple[LayerSource, ...]
    origin: str = ""


def record(store: ImageStore, source: Source) -> Image:
    """Give the image its names, once all that it needs is here."""
    return store.add_image(source.tags, source.document, origin=source.origin)


def fetch(store: ImageStore, source: Source, hold: Hold, report: Report) -> None:
    """Bring the layers that are missing. On an error those that are complete stay as long as `hold` does.

    Raises StorageError for bytes that are not what they should be, Unsupported for another platform's image.
    """
    try:
        document = manifest.read(source.document)
    except ValueError as exc:
        raise StorageError(f"{source.what}: {exc}") from exc
    found = {"os": document.os, "architecture": document.architecture, "variant": document.variant}
    if document.architecture and not oci.fits(found, manifest.host_architecture()):
        raise oci.no_platform(source.what, [oci.platform(found)])
    if len(document.layers) != len(source.layers):
        raise StorageError(
            f"{source.what} has {len(source.layers)} layers, its config names {len(document.layers)}",
            hint="it is damaged: make it anew",
        )
    hold.add(*document.layers)  # before the look: what is here now stays here
    missing = set(store.missing(document.layers))
    wanted = dict(zip(document.layers, source.layers, strict=True))
    for diff_id, layer in wanted.items():
        report(LayerProgress(layer=diff_id, text="waiting" if diff_id in missing else "here", total_bytes=layer.size))
    _bring(store, [(diff_id, layer) for diff_id, layer in wanted.items() if diff_id in missing], hold, report)


def _bring(store: ImageStore, layers: Sequence[tuple[str, LayerSource]], hold: Hold, report: Report) -> None:
    """Several at once; the first error stops all of them and is raised."""
    errors: list[BaseException] = []

    def bring(diff_id: str, layer: LayerSource) -> None:
        def chunks() -> Iterator[bytes]:
            done = 0
            for chunk in layer.chunks():
                if errors:
                    raise StorageError("another layer could not be stored")
                done += len(chunk)
                report(LayerProgress(layer=diff_id, text="fetching", done_bytes=done, total_bytes=layer.size))
                yield chunk

        if errors:
            return
        try:
            store.add_layer(chunks(), hold, diff_id=diff_id, blob=layer.blob)
            report(LayerProgress(layer=diff_id, text="done", done_bytes=layer.size, total_bytes=layer.size))
        except BaseException as exc:  # noqa: BLE001  # raised again below, by the thread that somebody waits for
            errors.append(exc)

    with ThreadPoolExecutor(PARALLEL_LAYERS, thread_name_prefix="layer") as executor:
        for diff_id, layer in layers:
            executor.submit(bring, diff_id, layer)
    if errors:
        raise errors[0]
