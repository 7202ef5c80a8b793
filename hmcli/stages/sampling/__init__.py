"""Generating target videos with a model."""
