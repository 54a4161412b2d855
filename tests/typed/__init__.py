"""Code that is never executed: type checkers read it, and tests read what they say."""
