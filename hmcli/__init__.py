"""hm: a command line for the whole life of a hybrid-memory video world model."""

__version__ = "0.1.0"
