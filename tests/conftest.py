"""Fixtures every test may use."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from warm import WarmCommand

PROJECT = Path(__file__).resolve().parents[1]
SLOWEST = 10  # files of tests named at the end of a run
FIRST = "tests/test_docs.py"  # minutes long: at the end it would run while the other process has nothing to do

# Neither an example nor its drawing may be too slow: on a busy machine both are.
settings.register_profile("no clock", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("no clock")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: not item.nodeid.startswith(FIRST))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Which files took longest, setup and teardown included, summed over processes."""
    spent: Counter[str] = Counter()
    for reports in terminalreporter.stats.values():
        for report in reports:
            if isinstance(report, pytest.TestReport):
                spent[report.location[0]] += report.duration  # type: ignore[assignment]
    if len(spent) > 1:
        terminalreporter.section(f"slowest {min(SLOWEST, len(spent))} of {len(spent)} files")
        for file, seconds in spent.most_common(SLOWEST):
            terminalreporter.write_line(f"{seconds:7.1f}s  {file}")


@pytest.fixture(scope="session")
def project() -> Path:
    """The checkout's root."""
    return PROJECT


@pytest.fixture(scope="session")
def shared() -> Path:
    """Reference material beside the checkout: golden vectors and example clips. A user's machine has none of it."""
    folder = PROJECT.parent / "shared"
    if not (folder / "golden").is_dir():
        pytest.skip("needs the reference material in ../shared, which is not beside this checkout")
    return folder


@pytest.fixture(scope="session")
def hm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WarmCommand]:
    """The `hm` command, warm (tests/warm.py)."""
    command = WarmCommand(tmp_path_factory.mktemp("hm"))
    yield command
    command.close()
