"""Hidden motion: exits and entries, what was seen, what can be foretold."""
