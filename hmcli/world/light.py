"""Light: sun, sky and haze of one clip."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hmcli.world.shapes import Colour


@dataclass(frozen=True, kw_only=True)
class Light:
    """Colours are display RGB; strengths multiply linear light."""

    towards_sun: tuple[float, float, float]  # unit vector
    sun: Colour
    sun_strength: float
    sky_strength: float  # light from all of the sky
    zenith: Colour
    horizon: Colour  # also the colour of haze
    cloud: float  # share of the sky with clouds, 0 to 1
    haze: float  # per metre
    words: str  # how a caption calls it


@dataclass(frozen=True, kw_only=True)
class Mood:
    """Weather and hour: what `Light` says, with the range of the sun's height in degrees."""

    sun: Colour
    sun_strength: float
    sky_strength: float
    zenith: Colour
    horizon: Colour
    cloud: float
    haze: float
    elevation: tuple[float, float]
    words: str


MOODS: dict[str, Mood] = {
    "noon": Mood(
        sun=(1.0, 0.97, 0.90), sun_strength=1.3, sky_strength=0.68, zenith=(0.22, 0.45, 0.80),
        horizon=(0.76, 0.85, 0.93), cloud=0.35, haze=0.006, elevation=(48, 66), words="on a clear day",
    ),
    "morning": Mood(
        sun=(1.0, 0.91, 0.76), sun_strength=1.2, sky_strength=0.68, zenith=(0.34, 0.55, 0.82),
        horizon=(0.88, 0.88, 0.86), cloud=0.25, haze=0.010, elevation=(30, 42), words="in the morning",
    ),
    "evening": Mood(
        sun=(1.0, 0.80, 0.56), sun_strength=1.2, sky_strength=0.68, zenith=(0.36, 0.42, 0.70),
        horizon=(0.96, 0.80, 0.64), cloud=0.45, haze=0.012, elevation=(24, 34), words="in warm evening light",
    ),
    "hazy": Mood(
        sun=(1.0, 0.96, 0.92), sun_strength=0.75, sky_strength=0.85, zenith=(0.62, 0.70, 0.78),
        horizon=(0.80, 0.83, 0.85), cloud=0.80, haze=0.020, elevation=(40, 60), words="in soft hazy light",
    ),
}  # fmt: skip


def light_from(rng: np.random.Generator) -> Light:
    """One of the moods, with its own sun position and strength."""
    mood = MOODS[str(rng.choice(list(MOODS)))]
    elevation = np.deg2rad(rng.uniform(*mood.elevation))
    azimuth = -np.pi / 2 + rng.uniform(-1.3, 1.3)  # behind the camera or beside it: faces towards it are lit
    flat = np.cos(elevation)
    return Light(
        towards_sun=(float(flat * np.cos(azimuth)), float(flat * np.sin(azimuth)), float(np.sin(elevation))),
        sun=mood.sun,
        sun_strength=mood.sun_strength * rng.uniform(0.9, 1.1),
        sky_strength=mood.sky_strength * rng.uniform(0.9, 1.1),
        zenith=mood.zenith,
        horizon=mood.horizon,
        cloud=float(np.clip(mood.cloud + rng.uniform(-0.2, 0.2), 0, 1)),
        haze=mood.haze * rng.uniform(0.8, 1.2),
        words=mood.words,
    )
