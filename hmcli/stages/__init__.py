"""One file per command; the only place where rooms meet."""
