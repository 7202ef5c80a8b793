"""One function per number."""
