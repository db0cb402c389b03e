"""-v, --mount and --tmpfs as Docker takes them."""

from __future__ import annotations

import argparse
from argparse import ArgumentTypeError

import pytest

from migrate.cli import mounts
from migrate.records import Mount

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/srv/a:/data", Mount(kind="bind", source="/srv/a", target="/data", create_source=True)),
        ("/srv//a/:/data/./x/", Mount(kind="bind", source="/srv/a", target="/data/x", create_source=True)),
        ("/:/host:ro", Mount(kind="bind", source="/", target="/host", create_source=True, read_only=True)),
        (
            "/a:/b:ro,z,rslave",
            Mount(kind="bind", source="/a", target="/b", create_source=True, read_only=True, propagation="rslave"),
        ),
        ("data:/data", Mount(kind="volume", source="data", target="/data")),
        ("data:/data:rw", Mount(kind="volume", source="data", target="/data")),
        ("data:/data:nocopy,ro", Mount(kind="volume", source="data", target="/data", no_copy=True, read_only=True)),
        ("/data", Mount(kind="volume", target="/data", anonymous=True)),
    ],
)
def test_volume(text: str, expected: Mount) -> None:
    """A path is a bind, a name a volume, a target alone an anonymous one."""
    assert mounts.volume(text) == expected


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("data", "mount path must be absolute"),
        ("./here:/data", "is a relative path"),
        ("a/b:/data", "is a relative path"),
        ("~/b:/data", "is a relative path"),
        ("b@d:/data", "invalid characters for a volume name"),
        ("/data:ro", "'ro': mount path must be absolute"),
        ("data:relative", "mount path must be absolute"),
        ("/a:/", "destination can't be '/'"),
        ("/", "destination can't be '/'"),
        ("/a:/..", "must not have .."),
        ("/a:/b:", "empty section"),
        (":/b", "empty section"),
        ("", "empty section"),
        ("/a:/b:ro:rw", "too many colons"),
        ("/a:/b:ro,rw", "contradict"),
        ("/a:/b:rslave,rshared", "contradict"),
        ("/a:/b:fast", "invalid mode 'fast'"),
        ("/a:/b:nocopy", "nocopy is no option of a bind mount"),
        ("data:/b:rslave", "rslave is no option of a volume"),
    ],
)
def test_a_volume_that_is_none(text: str, why: str) -> None:
    """What is wrong is said with the words that were typed."""
    with pytest.raises(ArgumentTypeError, match=why.replace("(", "\\(")):
        mounts.volume(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("type=bind,source=/a,target=/b", Mount(kind="bind", source="/a", target="/b")),
        ("type=bind,src=/a,dst=/b,readonly", Mount(kind="bind", source="/a", target="/b", read_only=True)),
        (
            "type=bind,src=/a,destination=/b,ro=false,bind-propagation=rslave",
            Mount(kind="bind", source="/a", target="/b", propagation="rslave"),
        ),
        ('type=bind,"src=/a,b",dst=/b', Mount(kind="bind", source="/a,b", target="/b")),
        ("source=data,target=/b", Mount(kind="volume", source="data", target="/b")),
        ("type=volume,src=data,dst=/b,volume-nocopy", Mount(kind="volume", source="data", target="/b", no_copy=True)),
        ("type=volume,target=/b", Mount(kind="volume", target="/b", anonymous=True)),
        (
            "type=tmpfs,target=/b,tmpfs-size=1m,tmpfs-mode=1770",
            Mount(kind="tmpfs", target="/b", size_bytes=1 << 20, mode=0o1770),
        ),
    ],
)
def test_mount(text: str, expected: Mount) -> None:
    """A bind's source is not made; every key has Docker's other names."""
    assert mounts.mount(text) == expected


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("type=bind,target=/b", "source is required"),
        ("type=bind,source=here,target=/b", "absolute path of the host"),
        ("type=bind,source=/a", "target is required"),
        ("type=nfs,source=/a,target=/b", "type is bind, volume or tmpfs"),
        ("type=tmpfs,source=/a,target=/b", "a tmpfs has no source"),
        ("type=bind,source=/a,target=/b,volume-nocopy", "volume-nocopy is no option of a mount of type bind"),
        ("type=volume,source=a,target=/b,tmpfs-size=1m", "tmpfs-size is no option of a mount of type volume"),
        ("type=bind,source=/a,target=/b,bind-propagation=sideways", "invalid propagation 'sideways'"),
        ("type=bind,source=/a,target=/b,colour=red", "unexpected key 'colour'"),
        ("type=bind,source=/a,target=/b,readonly=maybe", "readonly is true or false"),
        ("type=tmpfs,target=/b,tmpfs-mode=999", "is not a mode"),
        ("type=tmpfs,target=/b,tmpfs-size=lots", "is not a size"),
        ("type=bind,src=/a,source=/b,dst=/c", "source is given twice"),
        ("nonsense", "is not KEY=VALUE"),
    ],
)
def test_a_mount_that_is_none(text: str, why: str) -> None:
    """What is wrong is said."""
    with pytest.raises(ArgumentTypeError, match=why):
        mounts.mount(text)


def test_tmpfs() -> None:
    """Sizes, modes and flags; anything else is refused."""
    assert mounts.tmpfs("/run") == Mount(kind="tmpfs", target="/run")
    assert mounts.tmpfs("/run:size=64m,mode=755,ro,exec,uid=1000") == Mount(
        kind="tmpfs", target="/run", size_bytes=64 << 20, mode=0o755, read_only=True, options=("exec", "uid=1000")
    )
    for text, why in (
        ("run", "must be absolute"),
        ("/run:size=50%", "is not a size"),
        ("/run:huge=always", "invalid tmpfs option"),
        ("/:size=1m", "can't be '/'"),
    ):
        with pytest.raises(ArgumentTypeError, match=why):
            mounts.tmpfs(text)


def test_fields() -> None:
    """All three options come together; one target twice is refused, however it is written."""
    parser = argparse.ArgumentParser()
    mounts.add_options(parser)
    args = parser.parse_args(["-v", "/a:/b", "--tmpfs", "/c", "--mount", "src=d,dst=/d", "--read-only"])
    found = mounts.fields(args)
    assert [one.target for one in found["mounts"]] == ["/b", "/d", "/c"]
    assert found["read_only"]
    twice = parser.parse_args(["-v", "/a:/b", "--tmpfs", "/b/"])
    with pytest.raises(ArgumentTypeError, match="duplicate mount point: /b"):
        mounts.fields(twice)
