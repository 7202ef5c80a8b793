"""Packaged benchmarks, and the command that freezes them."""
