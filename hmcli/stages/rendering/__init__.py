"""Clips of the world, drawn and written."""
