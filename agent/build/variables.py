"""Variables in a Dockerfile: what a word becomes, and which names are known where. Pure.

${v} ${v:-x} ${v:+x} ${v:?x} ${v#x} ${v##x} ${v%x} ${v%%x} ${v/x/y} ${v//x/y}, as BuildKit reads them
"""

from __future__ import annotations

import platform
from collections.abc import Mapping

from e2b_dockerfile_utils import ShellLex

from agent.build.dockerfile import DockerfileError, Place

# Known to RUN without an ARG when --build-arg gives them; neither in the cache's key nor in the image.
PROXIES = tuple(
    name
    for upper in ("HTTP_PROXY", "HTTPS_PROXY", "FTP_PROXY", "NO_PROXY", "ALL_PROXY")
    for name in (upper, upper.lower())
)
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "riscv64": "riscv64", "ppc64le": "ppc64le", "s390x": "s390x"}


def word(text: str, values: Mapping[str, str], escape: str, place: Place, *, quotes: bool = True) -> str:
    """`text` with variables replaced and quotes removed; unknown variables are empty. `quotes` False: they are
    characters like others (here-documents). Raises DockerfileError.
    """
    lexer = ShellLex(escape, env=values, skip_unset_env=False, skip_process_quotes=not quotes)
    try:
        return lexer.process_word(text)
    except ValueError as exc:
        raise DockerfileError(place, str(exc)) from exc


def words(text: str, values: Mapping[str, str], escape: str, place: Place) -> tuple[str, ...]:
    """As `word`, then split at white space that no quotes protect: a variable may become several words, or none."""
    try:
        return tuple(ShellLex(escape, env=values, skip_unset_env=False).process_words(text))
    except ValueError as exc:
        raise DockerfileError(place, str(exc)) from exc


def host_platform() -> str:
    """ "linux/amd64": what this host runs and builds."""
    machine = platform.machine()
    return f"linux/{_ARCHITECTURES.get(machine, machine)}"


def platform_values(target: str) -> dict[str, str]:
    """The predefined variables of FROM lines (and of stages that say ARG); `target`: "linux/amd64"."""
    values: dict[str, str] = {}
    for prefix in ("TARGET", "BUILD"):
        os_name, _, rest = target.partition("/")
        architecture, _, variant = rest.partition("/")
        values |= {
            f"{prefix}PLATFORM": target,
            f"{prefix}OS": os_name,
            f"{prefix}ARCH": architecture,
            f"{prefix}VARIANT": variant,
        }
    return values
