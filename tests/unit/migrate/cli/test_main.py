"""The entry point: every help page, wrong command lines, and what is imported for them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from migrate.cli import main as cli

pytestmark = pytest.mark.unit

ROOT = Path(__file__).resolve().parents[4]
COMMANDS = [name for _, commands in cli.GROUPS for name, _, _ in commands]
HEAVY = ("grpc", "google.protobuf", "paramiko", "cryptography", "migrate.client")

WHAT_HELP_IMPORTS = """
import sys
from migrate.cli.main import main
try:
    status = main(sys.argv[1:])
except SystemExit as exc:
    status = exc.code
print("imported:", *sorted(set(sys.modules) & set({heavy!r})), file=sys.stderr)
sys.exit(status)
"""


def _python(*argv: str) -> subprocess.CompletedProcess[str]:
    code = WHAT_HELP_IMPORTS.format(heavy=HEAVY)
    return subprocess.run([sys.executable, "-c", code, *argv], capture_output=True, text=True, cwd=ROOT)


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_is_complete_and_light(command: str) -> None:
    """Each page ends with examples, and none of them waits for gRPC to be imported."""
    done = _python(*([command] if command else []), "--help")
    assert done.returncode == 0, done.stderr
    assert "examples:" in done.stdout
    assert done.stderr.strip() == "imported:"


def test_the_package_imports_nothing_heavy_until_it_is_used() -> None:
    """`import migrate` is free; `migrate.Client` brings gRPC."""
    code = "import sys, migrate; before = 'grpc' in sys.modules; migrate.Client; print(before, 'grpc' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip() == "False True"


def test_every_name_that_the_package_offers_is_there() -> None:
    """__all__ tells the truth, and nothing else is offered."""
    import migrate

    assert all(hasattr(migrate, name) for name in migrate.__all__)
    with pytest.raises(AttributeError, match="nonsense"):
        _ = migrate.nonsense


def test_an_unknown_command_is_answered_with_near_ones(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit status 2 and what was meant, on stderr."""
    assert cli.main(["mvoe"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: migrate has no command 'mvoe'\nhint: did you mean: move")


def test_a_wrong_option_names_the_help_page(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit status 2; no usage dump before the error."""
    with pytest.raises(SystemExit) as caught:
        cli.main(["move"])
    assert caught.value.code == 2
    assert capsys.readouterr().err == (
        "error: the following arguments are required: CONTAINER\nhint: migrate move --help\n"
    )


def test_docker_s_status_of_a_wrong_run(capsys: pytest.CaptureFixture[str]) -> None:
    """125, so that scripts can tell it from the container's own 2."""
    with pytest.raises(SystemExit) as caught:
        cli.main(["run", "--ip", "nonsense", "image"])
    assert caught.value.code == 125
    assert "argument --ip: 'nonsense' is not an address" in capsys.readouterr().err


def test_nothing_is_answered_with_the_overview(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit status 2, because nothing was done; 0 when it was asked for."""
    assert cli.main([]) == 2
    assert cli.main(["-h"]) == 0
    assert capsys.readouterr().out.count("Move running containers") == 2


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (["ps", "-a"], (None, "ps")),
        (["--coordinator", "/s", "ps"], ("/s", "ps")),
        (["--coordinator=/s", "ps"], ("/s", "ps")),
        (["--version"], (None, "")),
        (["run", "--name", "ps", "image"], (None, "run")),
    ],
)
def test_the_command_is_found_behind_global_options(argv: list[str], expected: tuple[str | None, str]) -> None:
    """The value of --coordinator is not taken for the command."""
    assert cli.split(argv) == expected


def test_the_named_coordinator_is_the_one_asked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """--coordinator goes before the environment."""
    assert cli.main(["--coordinator", str(tmp_path / "here.sock"), "ps"]) == 4
    assert f"no coordinator at {tmp_path}/here.sock" in capsys.readouterr().err


STUCK = """
import sys, threading
from migrate.cli import main as cli

class Call:  # as one of gRPC's whose lock a thread had when it was killed
    def __init__(self):
        self.itself = self
        self.lock = threading.Lock()
        self.lock.acquire()
    def __del__(self):
        self.lock.acquire()

def main():
    sys.last = Call()
    print("done")
    return 7

cli.main = main
cli.command()
"""


def test_the_process_ends_when_the_command_has() -> None:
    """With its status and all that it printed, whatever a destructor waits for."""
    done = subprocess.run([sys.executable, "-c", STUCK], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (7, "done\n", "")


@pytest.mark.parametrize(
    ("words", "status"), [(["--help"], 0), (["ps", "--help"], 0), (["ps", "--nonsense"], 2), (["mvoe"], 2)]
)
def test_exit_statuses_of_the_process(words: list[str], status: int) -> None:
    """Also of what argparse ends; its text is there in full."""
    done = subprocess.run(
        [sys.executable, "-m", "migrate", *words], capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    assert done.returncode == status
    assert (done.stdout if status == 0 else done.stderr).endswith("\n")


def test_a_closed_pipe_is_no_error() -> None:
    """`migrate --help | head -1` prints no traceback."""
    code = "import sys; from migrate.cli.main import main; sys.exit(main(['completion', 'bash']))"
    shell = f'{sys.executable} -c "{code}" | true'
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, cwd=ROOT)
    assert done.stderr == ""
