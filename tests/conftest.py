"""Tiers: which tests run on this machine, in which order, and whether the ones that should run did.

Every test belongs to one tier, by its marker or by its folder. The tiers `system` and `criu` are skipped where the host
lacks what they need, as `migrate doctor` finds it; a test that needs more says so with `@pytest.mark.needs("soft-dirty")`
or `pytest.skip("missing capability: soft-dirty")`. With --require-tiers a tier that did not run, or a skip whose reason
is not a capability that is really missing here, fails the run.

`make test` runs them with pytest-xdist, a file at a time in one of several processes: what a file's tests share, they share in one
process, and what the machine has only once is named after that process's pid. Tiers are counted and judged where all reports arrive.
"""

from __future__ import annotations

import faulthandler
import os
import signal
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest

from agent.setup import probe
from agent.setup.capability import Capability

END_S = 60.0
WORKERS = 4  # at most, with -n auto: each has a lab of its own in the end
TIERS = ("unit", "contract", "faults", "system", "criu")
_SYSTEM_NEEDS = (
    "privileges", "programs", "user-namespaces", "overlayfs", "idmapped-mounts", "network", "cgroup", "cgroup-freezer",
)  # fmt: skip
NEEDS = {"system": _SYSTEM_NEEDS, "criu": (*_SYSTEM_NEEDS, "nftables", "criu")}
REASON = "missing capability: "

# A busy machine draws slowly and answers late; both would be said to be faults of the test.
hypothesis.settings.register_profile("busy", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("busy")

_capabilities = pytest.StashKey[dict[str, Capability]]()
_outcomes = pytest.StashKey["Outcomes"]()


class Outcomes:
    """What became of the tests of each tier."""

    def __init__(self) -> None:
        self.tier_of: dict[str, str] = {}  # by node id
        self.passed: Counter[str] = Counter()
        self.skips: defaultdict[str, Counter[str]] = defaultdict(Counter)  # tier -> reason -> how often
        self.complaints: list[str] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--require-tiers",
        default="",
        metavar="TIER,...",
        help=f"fail when one of these did not really run: {', '.join(TIERS)}",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "needs(*names): skip unless the host has these capabilities of `migrate doctor`")
    config.stash[_outcomes] = Outcomes()
    if (
        signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    ):  # a shell's background job; all that tests start would ignore Ctrl-C
        signal.signal(signal.SIGINT, signal.default_int_handler)
    config.pluginmanager.register(Recorder(config), "tiers")
    if unknown := set(_required(config)) - set(TIERS):
        raise pytest.UsageError(f"--require-tiers: no tier is called {', '.join(sorted(unknown))}")


@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config: pytest.Config) -> None:
    """A thread that a failed test left waiting would keep the interpreter from ending, for ever: say where it is, and fail. One of
    several processes waits for the others then, and is ended by the first of them.
    """
    if not hasattr(config, "workerinput"):
        faulthandler.dump_traceback_later(END_S, exit=True)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Give every test its tier, and run the quick tiers first."""
    tier_of = config.stash[_outcomes].tier_of
    for item in items:
        marked = [tier for tier in TIERS if item.get_closest_marker(tier) is not None]
        tier = marked[-1] if marked else _tier_of_path(item.path)
        if tier is None:
            raise pytest.UsageError(f"{item.nodeid} has no tier: mark it with one of {', '.join(TIERS)}")
        if not marked:
            item.add_marker(tier)
        tier_of[item.nodeid] = tier
    items.sort(key=lambda item: TIERS.index(tier_of[item.nodeid]))  # stable: the order within a tier stays


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """A report tells its tier: it may be read in another process, which has collected nothing."""
    outcome = yield
    outcome.get_result().tier = item.config.stash[_outcomes].tier_of[item.nodeid]  # type: ignore[attr-defined]


def pytest_xdist_auto_num_workers() -> int:
    """For -n auto. Most of a run is waiting, for processes, networks and clocks: two on one processor are no crowd."""
    return max(2, min(WORKERS, len(os.sched_getaffinity(0))))


def pytest_runtest_setup(item: pytest.Item) -> None:
    needed = list(NEEDS.get(item.config.stash[_outcomes].tier_of[item.nodeid], ()))
    for marker in item.iter_markers("needs"):
        needed += marker.args
    if not needed:
        return
    found = probed(item.config)
    if unknown := [name for name in needed if name not in found]:
        pytest.fail(f"no probe is called {unknown[0]!r}; `migrate doctor` lists them")
    for name in needed:
        if not found[name].ok:
            pytest.skip(f"{REASON}{name} ({found[name].value})")


class Recorder:
    """Writes down what becomes of each test, and judges it at the end."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._outcomes = config.stash[_outcomes]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        tier = getattr(report, "tier", "unit")  # a worker that was killed leaves a report without
        if report.when == "call" and report.passed:
            self._outcomes.passed[tier] += 1
        elif report.skipped and not hasattr(report, "wasxfail"):
            self._outcomes.skips[tier][_reason(report.longrepr)] += 1

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.skipped:  # a whole file
            tier = _tier_of_path(self._config.rootpath / report.nodeid) or "unit"
            self._outcomes.skips[tier][_reason(report.longrepr)] += 1

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if hasattr(self._config, "workerinput"):  # one of several processes
            return
        required = _required(self._config)
        for tier in required:
            if not self._outcomes.passed[tier]:
                self._complain(f"tier {tier}: not one test passed")
            for reason in self._outcomes.skips[tier]:
                if complaint := self._judge(reason):
                    self._complain(f"tier {tier}: skipped for no good reason: {reason!r}: {complaint}")
        if self._outcomes.complaints and session.exitstatus in (pytest.ExitCode.OK, pytest.ExitCode.NO_TESTS_COLLECTED):
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        outcomes = self._outcomes
        terminalreporter.section("tiers")
        for tier in TIERS:
            if skips := outcomes.skips[tier]:
                reasons = "; ".join(f"{count} for {reason}" for reason, count in skips.items())
                terminalreporter.line(
                    f"{tier:<9} {outcomes.passed[tier]:>4} passed, {skips.total()} skipped: {reasons}"
                )
            elif outcomes.passed[tier] or tier in _required(self._config):
                terminalreporter.line(f"{tier:<9} {outcomes.passed[tier]:>4} passed")
        for complaint in outcomes.complaints:
            terminalreporter.line(f"ERROR {complaint}", red=True)

    def _complain(self, text: str) -> None:
        self._outcomes.complaints.append(text)

    def _judge(self, reason: str) -> str:
        """What is wrong with a skip for this reason, "" where a capability is really missing."""
        if not reason.startswith(REASON):
            return f"it must begin with {REASON!r} and name a capability"
        name = reason.removeprefix(REASON).split(" ", 1)[0].rstrip(":,;")
        capability = probed(self._config).get(name)
        if capability is None:
            return f"no probe is called {name!r}"
        return f"this machine has it: {capability.value}" if capability.ok else ""


def probed(config: pytest.Config) -> dict[str, Capability]:
    """What this host can do, by name; tried once a session, when the first test asks."""
    if _capabilities not in config.stash:
        config.stash[_capabilities] = {one.name: one for one in probe.probe()}
    return config.stash[_capabilities]


@pytest.fixture(scope="session")
def capabilities(pytestconfig: pytest.Config) -> dict[str, Capability]:
    """What this host can do, by name, as `migrate doctor` lists it."""
    return probed(pytestconfig)


def _required(config: pytest.Config) -> list[str]:
    return [tier for tier in str(config.getoption("--require-tiers")).split(",") if tier]


def _tier_of_path(path: Path) -> str | None:
    folders = path.relative_to(Path(__file__).parent).parts
    return folders[0] if folders[0] in TIERS else None


def _reason(longrepr: object) -> str:
    """Of a skip's report, (file, line, "Skipped: why")."""
    text = longrepr[2] if isinstance(longrepr, tuple) else str(longrepr)
    return str(text).removeprefix("Skipped: ")
