"""Generated videos side by side, for a person to look at."""
