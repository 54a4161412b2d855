"""Names from the disk as text: what is bytes of any kind there, a person shall read here."""

from __future__ import annotations

_SHORT = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}


def printable(name: bytes) -> str:
    r"""Return bytes as text of a single line, whatever they are.

    They are taken for UTF-8. What is none, and what cannot be seen or changes what is around it
    (control characters, marks that turn the direction of writing, odd spaces), is shown byte by
    byte as ``\xNN``; a few well-known ones as ``\n``, ``\r`` and ``\t``.

    >>> print(printable(b"na\xefve"), printable(b"a\nb"), printable(b"caf\xc3\xa9"))
    na\xefve a\nb café
    """
    text = name.decode(errors="backslashreplace")
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    return _SHORT.get(char) or "".join(f"\\x{byte:02x}" for byte in char.encode())
