"""Moves: what a camera does while it goes away from a subject, to the left or to the right; by name in the registry."""

from __future__ import annotations

from dataclasses import dataclass

Range = tuple[float, float]
NONE: Range = (0.0, 0.0)


@dataclass(frozen=True, kw_only=True)
class Move:
    """Ranges a trajectory is drawn from. Lengths are shares of the distance to the subjects' place at the start."""

    pan: Range = (1.0, 1.0)  # share of the turn
    truck: Range = NONE  # sideways: positive towards the side it turns to
    dolly: Range = NONE  # forward
    orbit: Range = NONE  # degrees round the subjects' place, positive towards the side it turns to
    crane: Range = NONE  # share of the camera's height
    lead: float = 0.0  # share of half the picture's width by which it begins beside the subject, on the other side
    undone: Range = (0.75, 1.0)  # share of slide, drive and circle that the return undoes


PAN = Move()
SWEEP = Move(pan=(1.1, 1.3), lead=0.55)
TRUCK = Move(pan=NONE, truck=(0.50, 0.68), lead=0.25, undone=(0.9, 1.0))
TRUCK_WITH_PAN = Move(pan=(0.75, 1.0), truck=(0.2, 0.4))
TRUCK_AGAINST_PAN = Move(pan=(0.9, 1.2), truck=(-0.4, -0.2))
DOLLY_IN = Move(pan=(0.8, 1.0), dolly=(0.45, 0.8))
DOLLY_OUT = Move(pan=(0.9, 1.1), dolly=(-0.30, -0.15))
ORBIT_WITH_PAN = Move(pan=(0.9, 1.1), orbit=(12.0, 26.0))
ORBIT_AGAINST_PAN = Move(pan=(0.9, 1.1), orbit=(-26.0, -12.0))
CRANE_UP = Move(crane=(0.3, 0.7), undone=(1.0, 1.0))
CRANE_DOWN = Move(crane=(-0.6, -0.3), undone=(1.0, 1.0))
TRUCK_AND_RISE = Move(pan=(0.5, 0.7), truck=(0.25, 0.45), crane=(0.2, 0.5), undone=(0.95, 1.0))
SWOOP = Move(pan=(0.9, 1.1), dolly=(0.2, 0.4), crane=(-0.6, -0.3), undone=(0.95, 1.0))
DIAGONAL = Move(pan=(0.7, 0.9), truck=(0.2, 0.35), dolly=(0.2, 0.4))
