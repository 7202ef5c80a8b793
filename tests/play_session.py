"""A walk to test with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hmcli.recipe.reading import load_recipe
from hmcli.runtime import Silent
from hmcli.stages.models.folders import find_model
from hmcli.stages.playing.opening import Start, open_session, usual
from hmcli.stages.playing.session import Session


def opened(model: Path, source: Path | None, place: Path, *overrides: str, **start: Any) -> Session:
    """A session in few steps, its files in `place`."""
    folder, begin = find_model(model), Start(source=source, **start)
    recipe = load_recipe(None, ["sample.steps=2", *overrides], usual(folder, begin))
    place.mkdir(parents=True, exist_ok=True)
    return open_session(recipe, folder, begin, place, "cpu", Silent())
