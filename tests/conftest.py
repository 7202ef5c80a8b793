"""Fixtures every test may use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from warm import WarmCommand

PROJECT = Path(__file__).resolve().parents[1]


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
