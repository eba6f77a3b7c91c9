"""The command line, `aedr`."""
