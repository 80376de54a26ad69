"""Benchmarks that are also tests: every one asserts the answer that it times.

``make bench``, or ``python -m pytest benchmarks --benchmark-json=bench-output/benchmark.json`` and then
``python benchmarks/report.py bench-output/benchmark.json``. With ``--quick`` (CI) sizes are a tenth, rounds are few,
and speed is not asserted.
"""

from collections.abc import Callable
from typing import Any

import machine
import pytest
import report
from versus import Versus

import fastgen

ROWS = pytest.StashKey[list[dict[str, Any]]]()
TABLES = pytest.StashKey[list[dict[str, Any]]]()
LIMITS = pytest.StashKey[dict[str, float] | None]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add ``--quick``."""
    parser.addoption("--quick", action="store_true", help="benchmarks: a tenth of the size, few rounds, answers only")


def pytest_configure(config: pytest.Config) -> None:
    """Prepare the record; refuse to measure on several processes at once."""
    if hasattr(config, "workerinput") or getattr(config.option, "dist", "no") != "no":
        raise pytest.UsageError("benchmarks that run side by side measure each other: do without xdist")
    config.stash[ROWS], config.stash[TABLES] = [], []
    config.option.benchmark_quiet = True  # its table shows one side only


@pytest.fixture(scope="session")
def quick(request: pytest.FixtureRequest) -> bool:
    """Whether this run is about answers, not speed."""
    return bool(request.config.getoption("quick"))


@pytest.fixture(scope="session")
def size(quick: bool) -> Callable[[int], int]:
    """How many samples there are to be, out of so many in a full run."""
    return lambda n: n // 10 if quick else n


@pytest.fixture(scope="session")
def limits(request: pytest.FixtureRequest, quick: bool) -> dict[str, float] | None:
    """What `machine.measure` finds; None without a C compiler."""
    found = machine.measure(3, 64) if quick else machine.measure()
    request.config.stash[LIMITS] = found
    return found


@pytest.fixture
def versus(benchmark: Any, request: pytest.FixtureRequest, quick: bool, limits: dict[str, float] | None) -> Versus:
    """Time fastgen and rivals in turns: see `versus.Versus`."""
    return Versus(benchmark, quick, limits, request.config.stash[ROWS])


@pytest.fixture(scope="session")
def table(request: pytest.FixtureRequest) -> Callable[[str, list[str], list[Any]], None]:
    """Add a row to a table of the report: ``table(title, headers, row)``."""
    tables = request.config.stash[TABLES]

    def add(title: str, headers: list[str], row: list[Any]) -> None:
        for known in tables:
            if known["title"] == title:
                known["rows"].append(row)
                return
        tables.append({"title": title, "headers": headers, "rows": [row]})

    return add


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_machine_info(config: pytest.Config, machine_info: dict[str, Any]) -> None:
    """Say what was measured, on what; where the files lie is nobody's concern."""
    machine_info.pop("node", None)
    machine_info["fastgen"] = fastgen.show_config("dicts")
    machine_info["fastgen"].pop("compiled modules")
    machine_info["limits"] = config.stash.get(LIMITS, None)
    machine_info["quick"] = config.getoption("quick")


@pytest.hookimpl(optionalhook=True)
def pytest_benchmark_update_json(config: pytest.Config, output_json: dict[str, Any]) -> None:
    """Put the tables beside the measurements."""
    output_json["tables"] = config.stash[TABLES]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print the tables, unless they go into a file, for the report."""
    if config.getoption("benchmark_json", None) or not (config.stash[ROWS] or config.stash[TABLES]):
        return
    terminalreporter.ensure_newline()
    terminalreporter.write_line("")
    for text in report.texts(config.stash[ROWS], config.stash[TABLES]):
        terminalreporter.write_line(text)
        terminalreporter.write_line("")
