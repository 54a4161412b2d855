"""The explorer: what it finds, tells, draws and serves."""
