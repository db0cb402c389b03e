"""What Docker's users type comes out as they know it: templates, words and options, against a fleet in memory."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from migrate.cli.main import main
from tests.fakes.fleet import FakeFleet

pytestmark = pytest.mark.contract


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (["images", "app", "--format", "{{.Repository}}:{{.Tag}} {{.Hosts}}"], "app:1 host2"),
        (["images", "app", "--format", r"table {{.ID}}\t{{.Tag}}"], "IMAGE ID  TAG\n1         1"),
        (["images", "nothing", "--format", "{{.ID}}"], ""),
        (["image", "inspect", "-f", '{{join .Config.Cmd " "}} {{index .RepoTags 0}}', "app:1"], "serve app:1"),
        (["inspect", "-f", "{{.Config.User}}{{.Id}}", "base"], "sha256:base"),
        (["inspect", "-f", "{{.Name}} {{.Config.Labels.tier}} {{.Config.Labels.no}}", "web1"], "web1 web <no value>"),
        (["inspect", "-f", "{{.State.Running}} {{json .HostConfig.Binds}}", "web1"], 'true ["data:/srv"]'),
        (["inspect", "-f", "{{range .Mounts}}{{.Type}}={{.Destination}}{{end}}", "web1"], "volume=/srv"),
        (["top", "--format", "{{.PID}}", "web1"], "1"),
        (["stats", "--no-stream", "--format", "{{.Name}} {{.Host}}", "web1"], "web1 host1"),
        (["ps", "--format", '{{.Names}}|{{.Label "tier"}}|{{len .Networks}}'], "web1|web|6"),
    ],
)  # fmt: skip
def test_templates(fleet: FakeFleet, capsys: pytest.CaptureFixture[str], words: list[str], shown: str) -> None:
    """A line a row, with headings where `table ` is before it, and nothing at all for no rows."""
    assert main(["run", "-d", "--name", "web1", "--host", "host1", "-l", "tier=web", "-v", "data:/srv", "base"]) == 0
    image = fleet.hosts["host2"].add_image("app:1")
    image.document = json.dumps({"config": {"Cmd": ["serve"]}})
    capsys.readouterr()
    assert main(words) == 0
    assert capsys.readouterr().out.strip() == shown


def test_columns_of_top(fleet: FakeFleet, capsys: pytest.CaptureFixture[str]) -> None:
    """As ps and Podman name them; what selects processes is taken and changes nothing."""
    fleet.run("web1")
    for words in (["-o", "pid,comm"], ["-eo", "pid,comm"], ["-opid=,comm="], ["pid", "comm"], ["-e", "-o", "pid,comm"]):
        assert main(["top", "web1", *words]) == 0
        assert capsys.readouterr().out.splitlines()[0].split() == ["PID", "COMMAND"], words
    assert main(["top", "web1", "aux"]) == 0
    assert capsys.readouterr().out.startswith("UID")
    assert main(["top", "web1", "-o", "colour"]) == 2
    assert "there is no column 'colour'" in capsys.readouterr().err


def test_inspect_says_docker_s_fields_and_ours(fleet: FakeFleet, capsys: pytest.CaptureFixture[str]) -> None:
    """In JSON too, for scripts that read either; a name that nothing has is an error, and what was found is printed."""
    assert main(["run", "-d", "--name", "web1", "--host", "host1", "-p", "8080:80", "base"]) == 0
    capsys.readouterr()
    assert main(["inspect", "web1", "nothing", "base"]) == 3
    out, err = capsys.readouterr()
    container, image = json.loads(out)
    assert container["id"] == container["Id"] and container["State"]["Status"] == "running"
    assert container["NetworkSettings"]["Ports"] == {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}]}
    assert image["Id"] == image["digest"]
    assert "no container 'nothing'" in err
    assert main(["inspect", "--type", "image", "web1"]) == 3
    assert main(["inspect", "-f", "{{.Nothing}}", "web1"]) == 2
    assert "there is no field '.Nothing'" in capsys.readouterr().err


def test_container_is_before_a_verb_as_with_docker(fleet: FakeFleet, capsys: pytest.CaptureFixture[str]) -> None:
    """`container ls` is `ps`; `inspect` means containers only; what is missing with -f is said and no failure."""
    assert main(["container", "run", "-d", "--name", "web1", "-h", "www", "--host", "host1", "base"]) == 0
    capsys.readouterr()
    assert main(["container", "ls", "--format", "{{.Names}}"]) == 0
    assert main(["container", "inspect", "-f", "{{.Config.Hostname}}", "web1"]) == 0
    assert capsys.readouterr().out == "web1\nwww\n"
    assert main(["container", "inspect", "base"]) == 3
    assert main(["container", "exists", "web1"]) == 0
    assert main(["container", "rm", "-f", "web1", "nothing"]) == 0
    assert "no container 'nothing'" in capsys.readouterr().err
    assert main(["container", "exists", "web1"]) == 1
    assert main(["rm", "nothing"]) == 3
    assert main(["rmi", "-f", "nothing"]) == 0
    assert "no image 'nothing'" in capsys.readouterr().err


def test_an_unknown_option_is_the_command_s_own_error(fleet: FakeFleet, capsys: pytest.CaptureFixture[str]) -> None:
    """With its help, and for `run` with 125, as for every mistake before the container."""
    for words, status, hint in (
        (["run", "--nope", "base"], 125, "migrate run --help"),
        (["ps", "--nope"], 2, "migrate ps --help"),
        (["image", "ls", "--nope"], 2, "migrate image --help"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(words)
        assert ended.value.code == status
        assert capsys.readouterr().err == f"error: unrecognized arguments: --nope\nhint: {hint}\n"


def test_replace_and_labels_of_a_file(fleet: FakeFleet, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The container of the name goes first; a file's labels are below those of the command line."""
    file = tmp_path / "labels"
    file.write_text("# of the team\ntier=web\nowner=me\n")
    words = [
        "run",
        "-d",
        "--host",
        "host1",
        "--name",
        "web1",
        "--label-file",
        str(file),
        "-l",
        "owner=you",
        "-q",
        "base",
    ]
    assert main(words) == 0
    assert dict(fleet.client.inspect("web1").labels) == {"tier": "web", "owner": "you"}
    assert main(words) == 125
    first = fleet.client.inspect("web1").id
    assert main([*words[:2], "--replace", *words[2:]]) == 0
    assert fleet.client.inspect("web1").id != first
    assert main(["run", "-d", "--replace", "base"]) == 125
    assert "--replace needs a --name" in capsys.readouterr().err
    assert main(["run", "-d", "--label-file", str(tmp_path / "none"), "base"]) == 125


def test_version_takes_a_template(fleet: FakeFleet, capsys: pytest.CaptureFixture[str]) -> None:
    """Docker's two sides."""
    assert main(["version", "-f", "{{.Client.Version}} {{.Server.Version}} {{.fleet}}"]) == 0
    client, server, name = capsys.readouterr().out.split()
    assert client == server and name == "test"


def test_the_volumes_of_another_container(fleet: FakeFleet, capsys: pytest.CaptureFixture[str]) -> None:
    """Its own mount at the same place goes first; `:ro` holds for all of that container's; a tmpfs is not shared."""
    words = ["run", "-d", "--host", "host1"]
    assert main([*words, "--name", "a", "-v", "data:/data", "-v", "logs:/logs", "--tmpfs", "/run", "base"]) == 0
    assert main([*words, "--name", "b", "--volumes-from", "a:ro", "-v", "mine:/logs", "base"]) == 0
    mounted = {one.target: (one.source, one.read_only) for one in fleet.client.inspect("b").mounts}
    assert mounted == {"/data": ("data", True), "/logs": ("mine", False)}
    assert main([*words, "--volumes-from", "nothing", "base"]) == 125
    assert "no container 'nothing'" in capsys.readouterr().err
