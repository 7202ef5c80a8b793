"""Cameras: poses, trajectories, fields of view, what is in sight."""
