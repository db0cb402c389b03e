"""What instructions mean: config, variables and their scopes, actions."""

from __future__ import annotations

import pytest

from agent.build import instructions
from agent.build.dockerfile import DockerfileError, parse
from agent.build.instructions import Action, Copy, Execute, MakeDirectory, Nothing, Scope, State
from agent.storage.manifest import Healthcheck, ImageConfig

pytestmark = pytest.mark.unit

BASE = ImageConfig(
    env=("PATH=/bin", "V=1"), cmd=("base",), working_dir="/w", labels={"a": "1"}, exposed_ports=("80/tcp",)
)


def after(
    text: str,
    config: ImageConfig = BASE,
    build_args: dict[str, str] | None = None,
    outer: dict[str, str] | None = None,
) -> tuple[State, Action]:
    """The state after all lines of `text`, and the last line's action."""
    state, action = State(config=config), Nothing()
    dockerfile = parse("FROM x\n" + text)
    scope = Scope(escape=dockerfile.escape, build_args=build_args or {}, outer=outer or {})
    for one in dockerfile.instructions[1:]:
        state, action = instructions.evaluate(state, one, scope)
    return state, action


def config(text: str, **options: dict[str, str]) -> ImageConfig:
    return after(text, **options)[0].config  # type: ignore[arg-type]


def run(text: str, **options: dict[str, str]) -> Execute:
    action = after(text, **options)[1]  # type: ignore[arg-type]
    assert isinstance(action, Execute)
    return action


def copy(text: str) -> Copy:
    action = after(text)[1]
    assert isinstance(action, Copy)
    return action


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("${X:-d}", "d"),
        ("${E:-d}", "d"),
        ("${E-d}", ""),
        ("${V:+y}", "y"),
        ("${X:+y}", ""),
        ("${F#*.}", "tar.gz"),
        ("${F##*.}", "gz"),
        ("${F%.*}", "a.tar"),
        ("${F%%.*}", "a"),
        ("${F/./-}", "a-tar.gz"),
        ("${F//./-}", "a-tar-gz"),
        ("\\$V", "$V"),
        ("'$V'", "$V"),
        ('"$V x"', "1 x"),
        ("${X:-${V}}", "1"),
        ("$UNKNOWN.", "."),
    ],
)
def test_substitution(text: str, value: str) -> None:
    """Variables are replaced as BuildKit replaces them."""
    assert f"OUT={value}" in config(f"ENV E= F=a.tar.gz\nENV OUT={text}\n").env


def test_one_instruction_sees_the_values_from_before_it() -> None:
    """Docker's example: abc=bye does not reach def in the same line, but ghi in the next."""
    env = config("ENV abc=hello\nENV abc=bye def=$abc\nENV ghi=$abc\n").env
    assert env[-3:] == ("abc=bye", "def=hello", "ghi=bye")


def test_scopes_of_arguments() -> None:
    """A build arg goes over the default, an ARG before FROM counts where there is none, ENV goes over both."""
    text = "ARG A=default\nARG B\nARG C\nARG V=arg\nENV OUT=$A-$B-$C-$V-$D\nARG D=late\n"
    assert "OUT=default-outer--1-" in config(text, outer={"B": "outer"}).env
    assert "OUT=given-given--1-" in config(text, build_args={"A": "given", "B": "given", "V": "x"}).env
    assert run("ARG A=1\nARG NONE\nRUN x\n").env == ("A=1", "PATH=/bin", "V=1")


def test_proxies_are_hidden() -> None:
    """They reach a command without an ARG, apart from its environment; with an ARG they are like others."""
    action = run("RUN x\n", build_args={"http_proxy": "p", "other": "o"})
    assert action.hidden == ("http_proxy=p",)
    assert "http_proxy=p" not in action.env
    assert run("ARG http_proxy\nRUN x\n", build_args={"http_proxy": "p"}).hidden == ()


def test_command_and_entrypoint() -> None:
    """Shell forms get the shell; a new entrypoint drops the base's command, not the one of this stage."""
    assert config("CMD a  b").cmd == ("/bin/sh", "-c", "a  b")
    assert config('SHELL ["/bin/bash", "-ec"]\nCMD a').cmd == ("/bin/bash", "-ec", "a")
    found = config('ENTRYPOINT ["e"]')
    assert (found.entrypoint, found.cmd) == (("e",), ())
    assert config('CMD ["c"]\nENTRYPOINT ["e"]').cmd == ("c",)
    assert config("CMD []").cmd == ()


def test_ports_volumes_labels_user() -> None:
    """Lists grow, in Docker's spelling."""
    found = config("ENV P=90\nEXPOSE $P/udp 8000-8002\nVOLUME /b /a\nLABEL b='x y' a=2\nUSER u:g\nSTOPSIGNAL $V")
    assert found.exposed_ports == ("80/tcp", "90/udp", "8000/tcp", "8001/tcp", "8002/tcp")
    assert found.volumes == ("/b", "/a")
    assert found.labels == {"a": "2", "b": "x y"}
    assert (found.user, found.stop_signal) == ("u:g", "1")


def test_working_directories_add_up() -> None:
    """Relative ones go on from the last, variables count, and nothing leads above the root."""
    state, action = after("WORKDIR a/${V}\nWORKDIR ../../../../b\n")
    assert state.config.working_dir == "/b"
    assert action == MakeDirectory(path="/b")


def test_healthcheck() -> None:
    """Times are Go's."""
    found = config("HEALTHCHECK --interval=1m30s --timeout=500ms --start-period=1h --retries=3 CMD curl x || exit 1")
    assert found.healthcheck == Healthcheck(
        test=("CMD-SHELL", "curl x || exit 1"),
        interval_ns=90 * 10**9,
        timeout_ns=5 * 10**8,
        start_period_ns=3600 * 10**9,
        retries=3,
    )
    assert config('HEALTHCHECK CMD ["a", "b"]').healthcheck == Healthcheck(test=("CMD", "a", "b"))
    assert config("HEALTHCHECK NONE").healthcheck == Healthcheck(test=("NONE",))


def test_run_forms() -> None:
    """Shell, exec, and here-documents: alone they are the script, with #! a program, in a command the shell's."""
    assert run("RUN a && b").argv == ("/bin/sh", "-c", "a && b")
    assert run('RUN ["a", "$V"]').argv == ("a", "$V")
    assert run("RUN <<EOF\na\nb\nEOF\n").argv == ("/bin/sh", "-c", "a\nb\n")
    assert run("RUN cat <<-E > x\n\ta $V\n\tE\n").argv[2] == "cat <<-E > x\na $V\nE"
    script = run("RUN <<EOF\n#!/usr/bin/python3\nprint(1)\nEOF\n")
    assert (script.argv, script.script) == (("/run/build-scripts/EOF",), "#!/usr/bin/python3\nprint(1)\n")
    found = run("USER u\nRUN --network=none x")
    assert (found.user, found.cwd, found.network) == ("u", "/w", "none")


def test_copy_places() -> None:
    """Destinations are absolute; a slash, a dot or several sources mean a directory."""
    assert (copy("COPY a b").destination, copy("COPY a b").into) == ("/w/b", False)
    assert (copy("COPY a .").destination, copy("COPY a .").into) == ("/w", True)
    assert (copy("COPY a ../x/").destination, copy("COPY a ../x/").into) == ("/x", True)
    found = copy('COPY --from=s --chown=$V:2 --chmod=755 --exclude=*.md --exclude=x ["a b", "$V", "/d/"]')
    assert found.sources == ("a b", "1")
    assert (found.from_, found.owner, found.mode, found.exclude) == ("s", "1:2", "755", ("*.md", "x"))
    assert not found.unpack
    assert copy("ADD a b").unpack
    assert not copy("ADD --unpack=false a b").unpack


def test_copy_documents() -> None:
    """Here-documents are sources with names; quotes in them stay, variables count unless the word was quoted."""
    found = copy("COPY <<a <<'b' c /d/\n\"$V\"\na\n$V\nb\n")
    assert found.documents == (("a", '"1"\n'), ("b", "$V\n"))
    assert found.sources == ("c",)


def test_mounts_of_run() -> None:
    """Each kind with its defaults; targets are absolute; variables count."""
    found = run(
        "RUN --mount=type=cache,target=c,id=$V,sharing=locked --mount=type=secret,id=t --mount=from=s,src=/a,dst=/b,rw"
        " --mount=type=tmpfs,target=/t,size=8m --mount=type=secret,id=e,env=TOKEN,required x\n"
    ).mounts
    assert [(one.kind, one.target) for one in found] == [
        ("cache", "/w/c"), ("secret", "/run/secrets/t"), ("bind", "/b"), ("tmpfs", "/t"), ("secret", ""),
    ]  # fmt: skip
    assert (found[0].id, found[0].sharing, found[0].read_only) == ("1", "locked", False)
    assert (found[1].id, found[1].mode, found[1].required) == ("t", 0o400, False)
    assert (found[2].from_, found[2].source, found[2].read_only) == ("s", "/a", False)
    assert found[3].size_bytes == 8 << 20
    assert (found[4].env, found[4].required) == ("TOKEN", True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("EXPOSE http", "EXPOSE http: no port"),
        ("EXPOSE 90-80", "EXPOSE 90-80: no port"),
        ("EXPOSE 70000", "EXPOSE 70000: no port"),
        ("STOPSIGNAL SIGWHAT", "unknown signal 'SIGWHAT'"),
        ("USER $NOBODY", "USER takes a name"),
        ("HEALTHCHECK --interval=5 CMD x", "--interval takes a time such as 30s"),
        ("HEALTHCHECK --retries=x CMD x", "--retries takes a number"),
        ("COPY a b /c", "needs a directory as destination"),
        ("COPY a $NOTHING", "the destination '\\$NOTHING' is empty"),
        ("COPY $NOTHING /a", "the source '\\$NOTHING' is empty"),
        ("RUN --network=what x", "--network is default, none or host"),
        ("RUN --security=insecure x", "--security=insecure is not supported"),
        ("RUN --mount=type=ssh x", "type=ssh is not supported"),
        ("RUN --mount=type=cache x", "type=cache takes a target"),
        ("RUN --mount=type=secret x", "type=secret takes an id"),
        ("RUN --mount=type=cache,target=/a,sharing=x x", "sharing is shared, private or locked"),
        ("RUN --mount=type=tmpfs,target=/a,size=x x", "size takes bytes"),
        ("RUN --mount=type=cache,target=/a,what=x x", "--mount has no 'what'"),
        ("ARG =1", "the name is empty"),
        ("ENV X=${V?no}${U:?gone}", "U: gone"),
        ("ADD --keep-git-dir https://x/y.git /z", "git repositories"),
    ],
)
def test_mistakes(text: str, message: str) -> None:
    """Each has its place and says what is meant."""
    with pytest.raises(DockerfileError, match=message) as caught:
        after(text)
    assert caught.value.place.line == 2
