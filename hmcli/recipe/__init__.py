"""Recipes: YAML and `--set key=value` become frozen dataclasses, checked whole."""
