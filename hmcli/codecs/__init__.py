"""Pixels <-> latents and text -> embeddings, behind one interface."""
