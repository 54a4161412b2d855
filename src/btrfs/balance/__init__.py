"""Balances: planned, simulated and run."""
