"""Benchmarks: frozen clips that anyone can draw again, and the file their scores are published in (docs/benchmark.md)."""
