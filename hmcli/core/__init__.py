"""HyDRA as equations: tensors in, tensors out."""
