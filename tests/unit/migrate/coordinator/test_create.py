"""What a new container will be: request, image and defaults put together; and its capabilities."""

from __future__ import annotations

import pytest

from migrate.coordinator import capabilities, create, inside
from migrate.errors import InvalidArgument
from protos import coordinator_pb2, types_pb2

pytestmark = pytest.mark.unit


def _image(**config: object) -> types_pb2.Image:
    return types_pb2.Image(name="base", digest="sha256:d", layers=["sha256:l"], config=types_pb2.ImageConfig(**config))


@pytest.mark.parametrize(
    ("entrypoint", "argv", "expected"),
    [
        ([], [], ["entry", "cmd"]),
        ([], ["mine"], ["entry", "mine"]),
        (["other"], [], ["other"]),
        (["other"], ["mine"], ["other", "mine"]),
        ([""], ["mine"], ["mine"]),
    ],
)
def test_the_command_follows_dockers_rules(entrypoint: list[str], argv: list[str], expected: list[str]) -> None:
    """A new entrypoint drops the image's cmd; [""] clears the entrypoint."""
    request = coordinator_pb2.RunRequest(image="base", entrypoint=entrypoint, argv=argv)
    config = types_pb2.ImageConfig(entrypoint=["entry"], cmd=["cmd"])
    assert create.command(request, config) == expected


def test_environments_are_merged_by_name() -> None:
    """The request wins over the image, the image over the default PATH; an entry without = is refused."""
    assert create.environment(["A=1", "PATH=/image"], ["A=2", "B=3"]) == ["PATH=/image", "A=2", "B=3"]
    assert create.environment([], []) == [create.DEFAULT_PATH]
    with pytest.raises(InvalidArgument, match="'NOVALUE'"):
        create.environment([], ["NOVALUE"])


def test_what_the_request_leaves_out_comes_from_the_image_or_the_defaults() -> None:
    """User, directory, stop signal and labels of the image; SIGTERM and ten seconds where nobody says."""
    image = _image(cmd=["x"], user="www", working_dir="/srv", labels={"a": "1", "b": "1"})
    request = coordinator_pb2.RunRequest(image="base", labels={"b": "2"})
    spec = create.specification(request, image)
    assert (spec.user, spec.cwd, spec.stop_signal, spec.stop_timeout_s) == ("www", "/srv", "SIGTERM", 10.0)
    assert dict(spec.labels) == {"a": "1", "b": "2"}
    assert (spec.image_digest, list(spec.layers)) == ("sha256:d", ["sha256:l"])


@pytest.mark.parametrize(
    ("request_", "config", "message"),
    [({}, {}, "no command"), ({"argv": ["x"], "cwd": "srv"}, {}, "absolute")],
)
def test_a_request_that_cannot_work_is_refused(request_: dict, config: dict, message: str) -> None:
    """Before anything is allocated."""
    with pytest.raises(InvalidArgument, match=message):
        create.specification(coordinator_pb2.RunRequest(image="base", **request_), _image(**config))


def test_capabilities_are_added_and_dropped() -> None:
    """Docker's defaults; names with or without CAP_; ALL on either side."""
    assert capabilities.bounding_set([], []) == tuple(sorted(capabilities.DEFAULT))
    changed = capabilities.bounding_set(["net_admin"], ["CAP_CHOWN"])
    assert "CAP_NET_ADMIN" in changed
    assert "CAP_CHOWN" not in changed
    assert capabilities.bounding_set(["KILL"], ["ALL"]) == ("CAP_KILL",)
    assert capabilities.bounding_set(["ALL"], ["SYS_ADMIN"]) == tuple(sorted(capabilities.ALL - {"CAP_SYS_ADMIN"}))
    with pytest.raises(InvalidArgument, match="'NONSENSE'"):
        capabilities.bounding_set(["NONSENSE"], [])


def test_the_defaults_are_those_of_the_agent() -> None:
    """Two lists, because neither side may import the other: they must stay equal."""
    from agent.engine.spec import DEFAULT_CAPABILITIES
    from agent.linux import process

    assert set(capabilities.DEFAULT) == set(DEFAULT_CAPABILITIES)
    assert all(process.capability_number(name) >= 0 for name in capabilities.ALL)


def test_a_name_of_its_own_and_the_host_s_are_two() -> None:
    """--hostname with --uts host is refused in Docker's words; the host's users are all of its ids."""
    request = coordinator_pb2.RunRequest(
        image="base", argv=["x"], hostname="web", isolation=types_pb2.Isolation(uts="host")
    )
    with pytest.raises(InvalidArgument, match="conflicting options: hostname and the UTS mode"):
        create.specification(request, _image())


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"umask": "8"}, "no umask"),
        ({"umask": "7777"}, "no umask"),
        ({"domainname": "a b"}, "no domain name"),
        ({"domainname": "a", "isolation": types_pb2.Isolation(uts="host")}, "domainname and the UTS mode"),
        ({"groups": ["a:b"]}, "no group"),
        ({"platform": "linux/arm64"}, "is for linux/amd64"),
    ],
)
def test_what_cannot_be_inside_is_refused(request_: dict, message: str) -> None:
    """Before anything is allocated."""
    image = _image(cmd=["x"])
    image.document = '{"architecture": "amd64", "os": "linux"}'
    with pytest.raises(InvalidArgument, match=message):
        create.specification(coordinator_pb2.RunRequest(image="base", **request_), image)
    create.specification(coordinator_pb2.RunRequest(image="base", platform="linux/amd64"), image)


def test_secrets_lie_in_a_tmpfs_and_their_contents_in_no_spec() -> None:
    """One is added for them, unless the request has one there; the spec names them."""
    secret = types_pb2.Secret(name="token", target="/run/secrets/token", mode=0o400)
    request = coordinator_pb2.RunRequest(image="base", secrets=[secret], secret_data={"token": b"hush-hush"})
    spec = create.specification(request, _image(cmd=["x"]))
    (mount,) = spec.mounts
    assert (mount.kind, mount.target) == ("tmpfs", "/run/secrets")
    assert list(spec.secrets) == [secret]
    assert b"hush-hush" not in spec.SerializeToString()
    request.mounts.add(kind="tmpfs", target="/run/secrets/")
    assert len(create.specification(request, _image(cmd=["x"])).mounts) == 1


def test_variables_of_the_image_can_be_left_out() -> None:
    """--unsetenv takes away what the image or the request says."""
    assert create.environment(["A=1", "PATH=/p"], ["B=2"], ["A", "PATH", "C"]) == ["B=2"]


@pytest.mark.parametrize(
    ("platform", "machine", "fitting"),
    [
        ("linux/amd64", "x86_64", True),
        ("linux/x86_64", "amd64", True),
        ("linux/arm64/v8", "aarch64", True),
        ("linux/arm64", "x86_64", False),
        ("windows/amd64", "x86_64", False),
    ],
)
def test_platforms(platform: str, machine: str, fitting: bool) -> None:
    """uname's words and Go's are the same machines."""
    assert inside.fits(platform, machine) is fitting
