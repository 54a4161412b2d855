"""What cannot be drawn."""

from __future__ import annotations


class HeatmapError(ValueError):
    """A picture that cannot be made as it was asked for.

    Attributes:
        hint: What could be done about it, one line without a full stop at its end, or None.
    """

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.hint = hint
