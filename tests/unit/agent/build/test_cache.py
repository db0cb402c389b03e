"""Keys of steps, and the entries that are kept under them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from agent.build import key
from agent.build.cache import Cache, Kept
from agent.build.instructions import Copy, Execute, MakeDirectory

pytestmark = pytest.mark.unit

RUN = Execute(argv=("sh", "-c", "x"), env=("A=1", "B=2"), cwd="/", user="")
COPY = Copy(sources=("a",), documents=(), destination="/d", into=True)
LAYERS = ("sha256:" + "0" * 64,)
KEPT = Kept(layer="sha256:" + "1" * 64, created_unix_ns=5)


def of(action: Execute | Copy | MakeDirectory, digests: dict[str, str] | None = None) -> str:
    return key.of(LAYERS, action, digests or {}, platform="linux/amd64")


def test_what_a_command_sees_is_in_its_key() -> None:
    """Another command, variable, user, directory, network or layer below is another key."""
    changes = (
        {"argv": ("y",)}, {"env": ("A=1",)}, {"env": ("A=1", "B=3")}, {"cwd": "/w"}, {"user": "u"},
        {"network": "none"}, {"script": "#!"},
    )  # fmt: skip
    keys = {of(dataclasses.replace(RUN, **one)) for one in changes}  # type: ignore[arg-type]
    keys |= {of(RUN), key.of((), RUN, {}, platform="linux/amd64"), key.of(LAYERS, RUN, {}, platform="linux/arm64")}
    assert len(keys) == len(changes) + 3


def test_what_it_does_not_see_is_not() -> None:
    """Proxies and the order of variables do not count; nor does, for COPY, which stage the files come from."""
    assert of(dataclasses.replace(RUN, hidden=("http_proxy=x",), env=("B=2", "A=1"))) == of(RUN)
    assert of(dataclasses.replace(COPY, from_="stage"), {"0": "x"}) == of(COPY, {"0": "x"})


def test_contents_are_in_the_key() -> None:
    """The digests of what is copied, and the text of here-documents."""
    assert of(COPY, {"0": "x"}) != of(COPY, {"0": "y"})
    assert of(dataclasses.replace(COPY, documents=(("n", "text"),))) != of(
        dataclasses.replace(COPY, documents=(("n", "x"),))
    )
    assert of(MakeDirectory(path="/a")) != of(MakeDirectory(path="/b"))


def test_entries_come_back(tmp_path: Path) -> None:
    """What was put is got, also by another object; what was not, or is damaged, is None."""
    Cache(tmp_path / "c").put("k", KEPT)
    cache = Cache(tmp_path / "c")
    assert cache.get("k") == KEPT
    assert cache.layers() == {KEPT.layer}
    assert cache.get("other") is None
    (tmp_path / "c" / "k.json").write_text("{")
    assert cache.get("k") is None
    assert cache.layers() == set()


def test_what_is_not_used_goes(tmp_path: Path) -> None:
    """Two weeks after the last use an entry is forgotten; a use starts them anew."""
    now = 1_000_000.0
    cache = Cache(tmp_path, clock=lambda: now)
    cache.put("a", KEPT)
    cache.put("b", KEPT)
    now += 10 * 24 * 3600
    assert cache.get("a") == KEPT
    now += 5 * 24 * 3600
    assert cache.forget() == 1
    assert (cache.get("a"), cache.get("b")) == (KEPT, None)
    assert cache.forget(older_than_s=0) == 1


def test_a_host_without_builds_has_no_layers(tmp_path: Path) -> None:
    """Asked before the first build, the cache is empty and makes nothing."""
    assert Cache(tmp_path / "no").layers() == set()
    assert Cache(tmp_path / "no").forget() == 0
    assert not (tmp_path / "no").exists()
