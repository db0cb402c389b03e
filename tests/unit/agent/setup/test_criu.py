"""Which CRIU is chosen, and which is refused."""

from __future__ import annotations

import platform
from pathlib import Path

import pytest

from agent.errors import Unsupported
from agent.setup import criu, criu_bundle

pytestmark = pytest.mark.unit


def make_criu(folder: Path, version: str, *, check: int = 0) -> Path:
    """A program that answers as `criu --version` and `criu check` do."""
    binary = folder / "bin" / "criu"
    binary.parent.mkdir(parents=True)
    binary.write_text(
        f'#!/bin/sh\n[ "$1" = --version ] && {{ echo "Version: {version}"; exit; }}\necho "Error: no" >&2; exit {check}\n'
    )
    binary.chmod(0o755)
    return binary


def make_pycriu(folder: Path) -> None:
    folder.mkdir(parents=True)
    (folder / "rpc_pb2.py").touch()


@pytest.fixture(autouse=True)
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A host with kernel 6.18 and no CRIU at all; everything lies under the path that this gives."""
    monkeypatch.setattr(criu, "BUNDLE", tmp_path / "opt")
    monkeypatch.setattr(criu, "SYSTEM_PYCRIU", tmp_path / "system-pycriu")
    monkeypatch.setattr(criu, "DIST_PYCRIU", tmp_path / "dist-packages" / "pycriu")
    monkeypatch.setattr(criu, "system_binary", lambda: None)
    monkeypatch.setattr(platform, "release", lambda: "6.18.44-test")
    return tmp_path


@pytest.mark.parametrize(
    ("release", "floor"),
    [("6.16.0-1-amd64", (4, 2)), ("6.15.9", (4, 1)), ("7.0", (4, 2)), ("6.12.48+deb13-cloud-amd64", (4, 1))],
)
def test_floor_follows_the_kernel(release: str, floor: tuple[int, ...]) -> None:
    """From kernel 6.16 on CRIU 4.2 is needed, before it 4.1."""
    assert criu.floor(release) == floor


def test_bundle_comes_before_the_system(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a bundle the system's CRIU is not looked at."""
    monkeypatch.setattr(criu, "system_binary", lambda: make_criu(host / "usr", "4.2"))
    bundled = make_criu(host / "opt", "4.2.1")
    make_pycriu(host / "opt" / "pycriu-path" / "pycriu")
    found = criu.locate()
    assert (found.binary, found.version) == (bundled, (4, 2, 1))
    assert found.pycriu_path == host / "opt" / "pycriu-path"


def test_configured_path_comes_before_the_bundle(host: Path) -> None:
    """`criu` in agent.toml is used even where a bundle exists; pycriu is the bundle's where it has none of its own."""
    make_criu(host / "opt", "4.2.1")
    make_pycriu(host / "opt" / "pycriu-path" / "pycriu")
    mine = make_criu(host / "mine", "4.3")
    assert criu.locate(str(mine)).binary == mine


def test_old_criu_is_refused_with_both_versions(host: Path) -> None:
    """4.1.1 on a 6.18 kernel: the message names both and what is needed, the hint what to type."""
    mine = make_criu(host / "mine", "4.1.1")
    with pytest.raises(Unsupported, match=r"CRIU 4\.1\.1 .* kernel 6\.18\.44-test needs 4\.2") as caught:
        criu.locate(str(mine))
    assert "make setup" in caught.value.hint


def test_no_criu_is_refused_with_a_remedy(host: Path) -> None:
    """Without any CRIU the error says where it was sought."""
    with pytest.raises(Unsupported, match=r"neither .*opt/bin/criu nor") as caught:
        criu.locate()
    assert "make setup" in caught.value.hint


def test_criu_without_pycriu_is_refused(host: Path) -> None:
    """A binary alone is not enough: requests are made with its Python package."""
    make_criu(host / "opt", "4.2.1")
    with pytest.raises(Unsupported, match="pycriu"):
        criu.locate()


def test_binary_that_does_not_start_is_refused(host: Path) -> None:
    """What is no program for this machine is named, not raised as an OSError."""
    broken = host / "criu"
    broken.write_text("no program")
    with pytest.raises(Unsupported, match="does not start"):
        criu.locate(str(broken))


def test_good_system_criu_needs_no_bundle(host: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A system CRIU that is new enough and passes its check is used, with only its pycriu linked."""
    make_pycriu(host / "dist-packages" / "pycriu")
    system = make_criu(host / "usr", "4.2")
    monkeypatch.setattr(criu, "system_binary", lambda: system)
    assert str(system) in criu_bundle.ensure(host / "opt")
    found = criu.locate()
    assert (found.binary, found.pycriu_path) == (system, host / "system-pycriu")
    assert [path.name for path in found.pycriu_path.iterdir()] == ["pycriu"]
    assert criu_bundle.ensure(host / "opt") == ""


@pytest.mark.parametrize(("version", "check"), [("4.1.1", 0), ("4.2", 1)])
def test_unfit_system_criu_makes_a_bundle_be_built(
    host: Path, monkeypatch: pytest.MonkeyPatch, version: str, check: int
) -> None:
    """A system CRIU that is too old, or that fails its own check, is not used."""
    make_pycriu(host / "dist-packages" / "pycriu")
    system = make_criu(host / "usr", version, check=check)
    monkeypatch.setattr(criu, "system_binary", lambda: system)
    built: list[Path] = []

    def build(bundle: Path) -> None:
        built.append(bundle)
        make_criu(bundle, "4.2.1")

    monkeypatch.setattr(criu_bundle, "build", build)
    assert "4.2.1" in criu_bundle.ensure(host / "opt")
    assert built == [host / "opt"]
