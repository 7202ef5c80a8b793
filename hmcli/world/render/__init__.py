"""The renderer; the only part of world that imports torch."""
