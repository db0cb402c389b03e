"""What every record can do, though its methods stand in one place."""

from __future__ import annotations

import dataclasses

import pytest

from migrate.records import Container, DeviceRate, Port, RegistryAccess, Run

pytestmark = pytest.mark.unit


def test_records_are_values() -> None:
    """Equal fields make them equal, also as keys; another class never is."""
    assert Port(container_port=80) == Port(container_port=80, protocol="tcp")
    assert len({Port(container_port=80), Port(container_port=80), Port(container_port=81)}) == 2
    assert Port(container_port=80) != DeviceRate(path="/", what="read_bps", rate=1)
    assert dataclasses.replace(Port(container_port=80), host_port=8080).host_port == 8080


def test_records_do_not_change() -> None:
    """As frozen dataclasses; what a default factory makes belongs to one record alone."""
    port = Port(container_port=80)
    with pytest.raises(dataclasses.FrozenInstanceError):
        port.host_port = 1  # type: ignore[misc]
    with pytest.raises(dataclasses.FrozenInstanceError):
        del port.host_port  # type: ignore[misc]
    assert Run(image="a").labels is not Run(image="a").labels


def test_wrong_fields_are_named() -> None:
    """One that is missing, and one that there is not, also with inherited ones."""
    with pytest.raises(TypeError, match="Port needs container_port"):
        Port()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="Run has no colour"):
        Run(image="a", colour="red")  # type: ignore[call-arg]
    assert {"memory_bytes", "mounts", "id"} <= {one.name for one in dataclasses.fields(Container)}


def test_credentials_are_not_printed() -> None:
    """A field that says repr=False stays out of messages and logs."""
    assert "secret" not in repr(RegistryAccess(credentials=b"secret"))
    assert repr(Port(container_port=80)).startswith("Port(container_port=80, host_port=0")
