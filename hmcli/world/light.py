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


# name: (sun, sun strength, sky strength, zenith, horizon, cloud, haze, elevation in degrees, words)
MOODS: dict[str, tuple[Colour, float, float, Colour, Colour, float, float, tuple[float, float], str]] = {
    "noon": ((1.0, 0.97, 0.90), 1.3, 0.68, (0.22, 0.45, 0.80), (0.76, 0.85, 0.93), 0.35, 0.006, (48, 66), "on a clear day"),
    "morning": ((1.0, 0.91, 0.76), 1.2, 0.68, (0.34, 0.55, 0.82), (0.88, 0.88, 0.86), 0.25, 0.010, (30, 42), "in the morning"),
    "evening": ((1.0, 0.80, 0.56), 1.2, 0.68, (0.36, 0.42, 0.70), (0.96, 0.80, 0.64), 0.45, 0.012, (24, 34), "in warm evening light"),
    "hazy": ((1.0, 0.96, 0.92), 0.75, 0.85, (0.62, 0.70, 0.78), (0.80, 0.83, 0.85), 0.80, 0.020, (40, 60), "in soft hazy light"),
}  # fmt: skip


def light_from(rng: np.random.Generator) -> Light:
    """One of the moods, with its own sun position and strength."""
    sun, sun_strength, sky_strength, zenith, horizon, cloud, haze, elevations, words = MOODS[rng.choice(list(MOODS))]
    elevation = np.deg2rad(rng.uniform(*elevations))
    azimuth = -np.pi / 2 + rng.uniform(-1.3, 1.3)  # behind the camera or beside it: faces towards it are lit
    flat = np.cos(elevation)
    return Light(
        towards_sun=(float(flat * np.cos(azimuth)), float(flat * np.sin(azimuth)), float(np.sin(elevation))),
        sun=sun,
        sun_strength=sun_strength * rng.uniform(0.9, 1.1),
        sky_strength=sky_strength * rng.uniform(0.9, 1.1),
        zenith=zenith,
        horizon=horizon,
        cloud=float(np.clip(cloud + rng.uniform(-0.2, 0.2), 0, 1)),
        haze=haze * rng.uniform(0.8, 1.2),
        words=words,
    )
