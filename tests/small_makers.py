"""Makers that tests put into worker processes: they need a module that every process can import."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from hmcli.contracts import Reporter
from hmcli.errors import DataError, UsageError
from hmcli.stages.shared.makers import Unit


@dataclass(frozen=True, kw_only=True)
class Writer:
    """Writes a unit's name into a file; some units go wrong, each in its way."""

    reporter: Reporter
    goes_wrong: Mapping[str, str]
    imports: tuple[str, ...] = ()

    def reporting_to(self, reporter: Reporter) -> Writer:
        return replace(self, reporter=reporter)

    def load(self) -> None:
        if "load" in self.goes_wrong:
            raise DataError("the weights are damaged")

    def make(self, unit: Unit, place: Path) -> dict[str, Any]:
        how = self.goes_wrong.get(unit.id, "")
        print("this must not reach the command's stdout")
        self.reporter.note("loaded")
        self.reporter.warn(f"{unit.id} is odd") if how == "odd" else None
        place.write_text(unit.id)
        if how == "data":
            raise DataError("it is cut short", where={"clip": unit.id})
        if how == "usage":
            raise UsageError("nothing can be made of that", where={"clip": unit.id}, fix="ask for something else")
        if how == "dies":
            os._exit(9)
        return {"pid": os.getpid(), "threads": _threads()}


def _threads() -> int:
    import torch

    return torch.get_num_threads()
