"""Policy `none`: no memory. What hybrid memory is measured against from below."""

from __future__ import annotations

from hmcli.core.retrieval import Reading, RetrievalRequest, needs, read_window, windows


@needs(plan=windows)
def window_only(asked: RetrievalRequest) -> Reading:
    """The local window and nothing else."""
    return read_window(asked)
