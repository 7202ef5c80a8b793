"""Two-legged animals: birds and the kangaroo."""

from __future__ import annotations

from hmcli.world.bodies import Biped
from hmcli.world.space.shapes import Paint
from hmcli.world.subjects.look import Look
from hmcli.world.subjects.palette import WHITE, Shades
from hmcli.world.subjects.wardrobe import ball, balls, rod

DARK = Paint(colour=(0.06, 0.05, 0.05))


def ostrich(s: Shades) -> Look:
    """A black round body with white plumes on bare pink legs and neck."""
    black, white, bare = s.plain((0.10, 0.09, 0.09)), s.plain(WHITE), s.plain((0.90, 0.66, 0.56))
    parts = (
        ball("trunk", (-0.20, 0, 0.02), (0.10, 0.10, 0.09), white),
        balls("trunk", (-0.05, 0.115, 0.01), (0.15, 0.035, 0.09), black),
        balls("trunk", (-0.15, 0.115, -0.03), (0.07, 0.03, 0.06), white),
    )
    figure = Biped(
        height=s.between(1.9, 2.2), hip=0.44, trunk=s.between(0.36, 0.40), girth=s.between(0.125, 0.14), slope=0.12,
        forward=0.02, neck=s.between(0.34, 0.38), neck_slope=s.between(1.25, 1.4), neck_radius=0.026, head=0.042,
        beak=1.5, beak_radius=0.55, beak_slope=-0.15, coat=black, neck_coat=bare, face=bare, thigh=bare, legs=bare,
        feet=bare, beak_paint=s.plain((0.85, 0.55, 0.30)), dark=DARK, parts=parts, thigh_radius=0.055, leg_radius=0.016,
        foot=0.11, stride=0.72,
    )  # fmt: skip
    return Look(figure, s.between(1.2, 1.7), "a black and white ostrich")


def flamingo(s: Shades) -> Look:
    """Pink all over on stilts, a curved neck, a black-tipped bent beak."""
    pink, deep = s.plain((0.98, 0.50, 0.58)), s.plain((0.90, 0.28, 0.42))
    parts = (
        balls("trunk", (-0.05, 0.080, 0.0), (0.14, 0.028, 0.065), deep),
        rod("trunk", (-0.14, 0, 0.0), (-0.23, 0, -0.03), (0.05, 0.02), deep),
        rod("head", (1.9, 0, -1.0), (2.0, 0, -1.9), (0.36, 0.2), DARK),
    )
    figure = Biped(
        height=s.between(1.6, 1.8), hip=0.50, trunk=s.between(0.29, 0.32), girth=s.between(0.085, 0.095), slope=0.25,
        forward=0.02, neck=s.between(0.30, 0.34), neck_slope=s.between(1.15, 1.3), neck_radius=0.020, head=0.040,
        beak=1.7, beak_radius=0.55, beak_slope=-0.55, coat=pink, neck_coat=pink, face=pink, thigh=pink, legs=deep,
        feet=deep, beak_paint=s.plain((0.96, 0.88, 0.82)), dark=DARK, parts=parts, thigh_radius=0.028, leg_radius=0.011,
        foot=0.09, stride=0.55,
    )  # fmt: skip
    return Look(figure, s.between(0.7, 0.95), "a pink flamingo")


def penguin(s: Shades) -> Look:
    """Upright, black behind and white in front, orange feet, beak and ear spots."""
    coat, black = s.mixed("front", (0.10, 0.12, 0.18), WHITE, 1.0), s.plain((0.10, 0.12, 0.18))
    orange = s.plain((0.98, 0.58, 0.08))
    parts = (
        balls("trunk", (0.04, 0.215, 0.02), (0.23, 0.028, 0.075), black, (-0.25, 0.0)),
        balls("head", (-0.1, 0.75, -0.3), (0.35, 0.3, 0.5), orange),
        rod("trunk", (-0.26, 0, 0.06), (-0.36, 0, 0.12), (0.06, 0.02), black),
    )
    figure = Biped(
        height=s.between(1.2, 1.4), hip=0.24, trunk=s.between(0.64, 0.70), girth=s.between(0.195, 0.215), slope=1.42,
        forward=0.25, neck=0.12, neck_slope=1.5, neck_radius=0.12, head=0.125, beak=1.3, beak_radius=0.35,
        beak_slope=-0.05, coat=coat, neck_coat=black, face=black, thigh=black, legs=orange, feet=orange,
        beak_paint=orange, dark=DARK, parts=parts, thigh_radius=0.07, leg_radius=0.035, foot=0.17, stride=0.30,
    )  # fmt: skip
    return Look(figure, s.between(0.4, 0.6), "a black and white penguin with orange feet")


def kangaroo(s: Shades) -> Look:
    """Reddish with a pale belly, hopping on large feet, a long heavy tail."""
    red, pale = (0.68, 0.42, 0.26), (0.92, 0.80, 0.62)
    coat, fur, dark = s.mixed("front", red, pale, 1.0), s.plain(red), s.plain((0.34, 0.20, 0.12))
    parts = (
        rod("trunk", (-0.20, 0, 0.02), (-0.42, 0, 0.16), (0.085, 0.060), fur),
        rod("trunk", (-0.42, 0, 0.16), (-0.60, 0, 0.52), (0.060, 0.025), fur),
        rod("trunk", (0.15, 0.09, -0.05), (0.10, 0.11, -0.17), (0.036, 0.026), fur, both=True),
        rod("trunk", (0.10, 0.11, -0.17), (0.17, 0.09, -0.22), (0.026, 0.022), dark, both=True),
        rod("head", (-0.2, 0.45, 0.7), (-0.55, 0.95, 2.5), (0.32, 0.20), dark, both=True),
    )
    figure = Biped(
        height=s.between(1.45, 1.65), hip=0.36, trunk=s.between(0.48, 0.52), girth=s.between(0.135, 0.15), slope=0.95,
        forward=0.05, neck=s.between(0.12, 0.15), neck_slope=1.1, neck_radius=0.062, head=0.078, beak=1.5,
        beak_radius=0.68, beak_slope=-0.3, coat=coat, neck_coat=fur, face=fur, thigh=fur, legs=fur, feet=dark,
        beak_paint=fur, dark=DARK, parts=parts, thigh_radius=0.105, leg_radius=0.030, foot=0.24, stride=0.95, hop=0.13,
        duty=0.45, bent=1.12, apart=0.75,
    )  # fmt: skip
    return Look(figure, s.between(1.1, 1.5), "a reddish kangaroo")
