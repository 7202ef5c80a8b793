"""Training a transformer or a codec, with checkpoints."""
