"""What an artifact is, and what a model reads from memory."""
