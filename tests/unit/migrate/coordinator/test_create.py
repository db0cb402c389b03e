"""What a new container will be: request, image and defaults put together; and its capabilities."""

from __future__ import annotations

import pytest

from migrate.coordinator import capabilities, create
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
