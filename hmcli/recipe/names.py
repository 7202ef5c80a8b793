"""Names of the world that recipes may use."""

from __future__ import annotations

SCENES = (  # what hmcli.world knows, here because importing it is slow (tests/cli compares them)
    "street", "market", "night-city", "meadow", "snow", "autumn", "bamboo", "beach", "harbour", "desert", "canyon",
    "temple", "lunar", "museum", "warehouse", "playground", "stadium",
)  # fmt: skip
SUBJECTS = (
    "walker", "hiker", "jogger", "office-worker", "builder", "firefighter", "doctor", "chef", "farmer",
    "schoolchild", "elder", "rain-walker", "porter", "monk", "wizard", "knight", "pirate", "cowboy", "astronaut",
    "diver", "clown", "ninja", "king", "bride", "ballerina", "scarecrow", "robot", "dog", "deer", "horse", "cow",
    "pig", "sheep", "fox", "bear", "panda", "elephant", "giraffe", "zebra", "camel", "lion", "tiger", "tortoise",
    "crocodile", "rabbit", "ostrich", "flamingo", "penguin", "kangaroo",
)  # fmt: skip
_MOVES = ("pan", "sweep", "truck", "truck-with-pan", "truck-against-pan", "dolly-in", "dolly-out", "orbit-with-pan",
          "orbit-against-pan", "crane-up", "crane-down", "truck-and-rise", "swoop", "diagonal")  # fmt: skip
TRAJECTORIES = ("any", *(f"{move}-{side}" for move in _MOVES for side in ("left", "right")))
