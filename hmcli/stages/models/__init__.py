"""Weights and checkpoints: finding, reading, converting, telling them apart."""
