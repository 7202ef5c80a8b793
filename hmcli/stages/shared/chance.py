"""Seeds of a clip: by name, never by order."""

from __future__ import annotations

import hashlib


def clip_seed(seed: int, clip: str) -> int:
    """The seed of whatever is random about a clip: depends on the run's seed and the clip's id alone."""
    return int.from_bytes(hashlib.sha256(f"{seed} {clip}".encode()).digest()[:8], "big") >> 1
