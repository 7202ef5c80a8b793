"""The `hm` command: one thin function per command; parse, call the stage, print the artifact's path."""
