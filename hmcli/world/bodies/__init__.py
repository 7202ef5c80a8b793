"""Bodies: people-like, four-legged and two-legged figures, posed for every frame at once.

Body frame: x forward, y left, z up, the origin on the ground below a person's hips or an animal's middle; metres. A
figure is a set of proportions and parts (dataclass), so families of subjects are data, not code.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from hmcli.world.bodies.biped import Biped, biped
from hmcli.world.bodies.gait import Lift, settled
from hmcli.world.bodies.parts import Part
from hmcli.world.bodies.person import Arm, Person, face, person
from hmcli.world.bodies.quadruped import Quadruped, quadruped
from hmcli.world.space import extent
from hmcli.world.space.shapes import Shapes

__all__ = ["Arm", "Biped", "Figure", "Part", "Person", "Quadruped", "face", "posed", "settled"]

Figure = Person | Quadruped | Biped


def posed(figure: Figure, phase_T: np.ndarray, owner: int, lift: Lift = 1.0) -> Shapes:
    """The figure's shapes in its own frame, (T, N), at each phase (strides walked since the start).

    `lift` is how high feet are lifted, as a share: 0 where somebody stands.
    """
    if isinstance(figure, Person):
        return person(figure, phase_T, owner, lift)
    moving, standing = (_animal(figure, *at) for at in ((phase_T, owner, lift), (np.zeros(1), owner, 1.0)))
    ahead, behind = (float(extent.reach_along(standing, (x, 0.0, 0.0)).max()) for x in (1.0, -1.0))
    return replace(moving, centre=moving.centre - [(ahead - behind) / 2, 0.0, 0.0])  # animals turn about their middle


def _animal(figure: Quadruped | Biped, phase_T: np.ndarray, owner: int, lift: Lift) -> Shapes:
    if isinstance(figure, Quadruped):
        return quadruped(figure, phase_T, owner, lift)
    return biped(figure, phase_T, owner, lift)
