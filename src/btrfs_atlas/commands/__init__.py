"""The subcommands, a module each: `add_arguments()` says what it takes, `run()` does it.

The modules import what they need when they run, so that a program starts quickly.
"""
