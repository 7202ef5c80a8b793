"""Backbones that load nothing from a folder refuse to be given one."""

from __future__ import annotations

from hmcli.errors import UsageError


def refuse_path(path: str, what: str, *, fix: str) -> None:
    """Raise UsageError, saying `what`, where a path of weights was given."""
    if path:
        raise UsageError(what, where={"recipe": f"eval.backbone_path={path}"}, fix=fix)
