"""Light: sun, sky, lamps and haze of one clip."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from hmcli.world.space.shapes import Colour

Vector = tuple[float, float, float]


@dataclass(frozen=True, kw_only=True)
class Lamp:
    """A lamp of a scene: it shines to all sides and throws no shadows."""

    place: Vector  # metres
    colour: Colour
    strength: float  # linear light at one metre


@dataclass(frozen=True, kw_only=True)
class Light:
    """Colours are display RGB; strengths multiply linear light."""

    towards_sun: Vector  # unit vector; indoors the ceiling lights stand in for the sun
    sun: Colour
    sun_strength: float
    sky_strength: float  # light from all of the sky
    fill: Colour  # light from all sides, which is not the sky's
    zenith: Colour
    horizon: Colour  # also the colour of haze
    cloud: float  # share of the sky with clouds, 0 to 1
    haze: float  # per metre
    stars: float  # brightness of the stars
    towards_orb: Vector  # unit vector to a moon or planet
    orb: Colour
    orb_radius: float  # sine of half the angle it fills; 0: none
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
    fill: Colour = (0.0, 0.0, 0.0)
    stars: float = 0.0
    orb: Colour = (1.0, 1.0, 1.0)
    orb_radius: float = 0.0


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
    "overcast": Mood(
        sun=(0.92, 0.95, 1.0), sun_strength=0.30, sky_strength=1.0, zenith=(0.58, 0.63, 0.69),
        horizon=(0.76, 0.79, 0.82), cloud=0.95, haze=0.010, elevation=(50, 70), words="under a grey sky",
    ),
    "dust": Mood(
        sun=(1.0, 0.88, 0.70), sun_strength=0.95, sky_strength=0.70, zenith=(0.66, 0.68, 0.70),
        horizon=(0.93, 0.82, 0.66), cloud=0.15, haze=0.014, elevation=(36, 58), words="in dusty light",
    ),
    "sunset": Mood(
        sun=(1.0, 0.80, 0.60), sun_strength=1.1, sky_strength=0.70, zenith=(0.38, 0.42, 0.72),
        horizon=(0.99, 0.72, 0.56), cloud=0.50, haze=0.010, elevation=(14, 24), words="at sunset",
    ),
    "snowfall": Mood(
        sun=(0.94, 0.97, 1.0), sun_strength=0.30, sky_strength=0.95, zenith=(0.70, 0.76, 0.83),
        horizon=(0.84, 0.88, 0.92), cloud=1.0, haze=0.018, elevation=(40, 60), words="in white winter light",
    ),
    "frost": Mood(
        sun=(1.0, 0.90, 0.78), sun_strength=0.90, sky_strength=0.80, zenith=(0.44, 0.64, 0.88),
        horizon=(0.88, 0.90, 0.94), cloud=0.15, haze=0.010, elevation=(18, 30), words="on a clear winter day",
    ),
    "forest": Mood(
        sun=(0.98, 1.0, 0.74), sun_strength=0.95, sky_strength=0.60, zenith=(0.50, 0.70, 0.46),
        horizon=(0.72, 0.86, 0.60), cloud=0.1, haze=0.019, elevation=(55, 72), words="in green shade",
    ),
    "night": Mood(
        sun=(0.62, 0.72, 1.0), sun_strength=0.10, sky_strength=0.30, zenith=(0.03, 0.05, 0.13),
        horizon=(0.17, 0.17, 0.30), cloud=0.1, haze=0.009, elevation=(35, 55), words="at night",
        fill=(0.22, 0.23, 0.33), stars=0.5, orb=(0.95, 0.93, 0.84), orb_radius=0.022,
    ),
    "hall": Mood(
        sun=(1.0, 0.96, 0.88), sun_strength=0.55, sky_strength=0.0, zenith=(0.30, 0.29, 0.28),
        horizon=(0.62, 0.60, 0.57), cloud=0.0, haze=0.003, elevation=(66, 80), words="under warm ceiling lights",
        fill=(0.62, 0.60, 0.57),
    ),
    "depot": Mood(
        sun=(0.93, 0.98, 1.0), sun_strength=0.75, sky_strength=0.0, zenith=(0.26, 0.28, 0.30),
        horizon=(0.50, 0.54, 0.57), cloud=0.0, haze=0.006, elevation=(66, 80), words="under cold ceiling lights",
        fill=(0.58, 0.60, 0.62),
    ),
    "space": Mood(
        sun=(1.0, 0.98, 0.95), sun_strength=1.75, sky_strength=0.0, zenith=(0.0, 0.0, 0.01),
        horizon=(0.01, 0.01, 0.02), cloud=0.0, haze=0.0, elevation=(22, 40), words="under a black sky",
        fill=(0.21, 0.21, 0.23), stars=1.0, orb=(0.32, 0.56, 0.95), orb_radius=0.055,
    ),
}  # fmt: skip


def light_from(rng: np.random.Generator, moods: tuple[str, ...] | None = None) -> Light:
    """One of the named moods (outdoor daylight when none is named), with its own sun position and strength."""
    mood = MOODS[str(rng.choice(moods or ("noon", "morning", "evening", "hazy")))]
    elevation = np.deg2rad(rng.uniform(*mood.elevation))
    azimuth = -np.pi / 2 + rng.uniform(-1.3, 1.3)  # behind the camera or beside it: faces towards it are lit
    return Light(
        towards_sun=_towards(azimuth, elevation),
        sun=mood.sun,
        sun_strength=mood.sun_strength * rng.uniform(0.9, 1.1),
        sky_strength=mood.sky_strength * rng.uniform(0.9, 1.1),
        fill=mood.fill,
        zenith=mood.zenith,
        horizon=mood.horizon,
        cloud=float(np.clip(mood.cloud + rng.uniform(-0.2, 0.2), 0, 1)),
        haze=mood.haze * rng.uniform(0.8, 1.2),
        stars=mood.stars,
        towards_orb=_towards(np.pi / 2 + rng.uniform(-1.0, 1.0), np.deg2rad(rng.uniform(7, 11))),
        orb=mood.orb,
        orb_radius=mood.orb_radius,
        words=mood.words,
    )


def _towards(azimuth: float, elevation: float) -> Vector:
    flat = np.cos(elevation)
    return float(flat * np.cos(azimuth)), float(flat * np.sin(azimuth)), float(np.sin(elevation))
