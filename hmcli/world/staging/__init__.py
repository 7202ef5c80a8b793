"""A clip from a seed: who walks where, what the camera does, what is written about it."""
