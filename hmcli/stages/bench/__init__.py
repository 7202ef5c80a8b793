"""Benchmarks: frozen clips that anyone can draw again, and the file scores on them are published in."""
