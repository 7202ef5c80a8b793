"""Shapes, extents, obstacles and light."""
