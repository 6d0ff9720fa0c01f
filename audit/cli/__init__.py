"""The command line: one file a command group. Heavy libraries are imported inside the commands that need them."""
