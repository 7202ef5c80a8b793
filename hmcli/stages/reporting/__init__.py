"""Reports: evaluations side by side, for people to look at."""
