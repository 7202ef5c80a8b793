"""Small things that rooms hand each other: no torch, no I/O, no behaviour beyond their own shape."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np

TIME_STRIDE = 4  # video frames per latent frame after the first one (causal VAE: 1 + 4k frames -> 1 + k latent frames)
SIDE_STEP = 8  # sides of videos, in pixels, are multiples of it: whole latent pixels for codecs of stride 4 and 8


@dataclass(frozen=True, kw_only=True)
class Quarantined:
    """An item a stage could not use: which one, and why."""

    item: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class StageResult:
    """What a stage tells the command line: the artifact it wrote, and what it had to leave out."""

    path: Path
    kind: str
    fingerprint: str = ""  # empty for outputs without a manifest (a report, a copied recipe)
    counts: Mapping[str, int] = field(default_factory=dict)
    quarantined: tuple[Quarantined, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Description:
    """The result of a command that writes nothing: text for a person, or the same as data for --json."""

    text: str
    data: Mapping[str, Any]
    quarantined: tuple[Quarantined, ...] = ()  # items that are not as they should be


class Reporter(Protocol):
    """How a stage talks to a person while it runs; `hmcli.runtime` draws it on stderr."""

    def note(self, text: str) -> None: ...

    def warn(self, text: str) -> None: ...

    def progress(self, what: str, total: int, unit: str) -> AbstractContextManager[Callable[[int], None]]: ...


class VideoCodec(Protocol):
    """Pixels <-> latents. Latents are normalised with the VAE's own per-channel mean and standard deviation."""

    name: str
    channels: int
    stride: int  # pixels per latent pixel along a side

    def encode(self, video: Any) -> Any:
        """(B, 3, T, H, W) float in [-1, 1], T = 1 + 4k, H = h * stride, W = w * stride -> (B, C, 1 + k, h, w)."""

    def decode(self, latents: Any) -> Any:
        """(B, C, 1 + k, h, w) -> (B, 3, 1 + 4k, h * stride, w * stride) float in [-1, 1]."""


class TextEncoder(Protocol):
    """Text <-> embeddings. Padding is not stored: a caption of n tokens is n rows."""

    name: str
    dim: int
    length: int  # rows after zero padding, as the model sees them

    def encode(self, captions: list[str]) -> list[np.ndarray]:
        """One (n, dim) float32 array per caption, n <= length."""
