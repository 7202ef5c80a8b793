"""Small faults put into the code one at a time: would a test notice?  docs/mutants.md; `make mutants`."""
