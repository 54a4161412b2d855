"""Tests of the pictures: the engine by itself, and against the original."""
