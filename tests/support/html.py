"""The explorer's page, served or exported: what is in it, and whether its policy fits."""

from __future__ import annotations

import base64
import hashlib
import json
from html.parser import HTMLParser
from typing import Any

Contents = dict[str, Any]


class Elements(HTMLParser):
    """The elements of a page: names, attributes, and the text in each."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None], list[str]]] = []
        self._text: list[str] = []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Take the start of an element."""
        self._text = []
        self.found.append((tag, dict(attrs), self._text))

    def handle_endtag(self, _: str) -> None:
        """Take the end of an element; the text after it belongs to none."""
        self._text = []

    def handle_data(self, data: str) -> None:
        """Take a piece of text."""
        self._text.append(data)

    def texts(self, tag: str, **attributes: str) -> list[str]:
        """Return the texts of all elements of a name, with these attributes."""
        return [
            "".join(text)
            for name, found, text in self.found
            if name == tag and attributes.items() <= found.items()
        ]


def contents_of(html: str) -> Contents:
    """Return what the page knows from the beginning."""
    (text,) = Elements(html).texts("script", id="contents", type="application/json")
    contents: Contents = json.loads(text)
    return contents


def assert_policy(policy: str, html: str, may_load: dict[str, str]) -> None:
    """Check that a policy allows the script and the styles of a page, and what it may load."""
    elements = Elements(html)
    scripts, sheets = elements.texts("script", type="module"), elements.texts("style")
    assert len(scripts) == 1
    assert dict(rule.split(" ", 1) for rule in policy.split("; ")) == {
        "default-src": "'none'",
        "script-src": _hash(scripts[0]),
        "style-src": " ".join(map(_hash, sheets)),
        **may_load,
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    # What is written into an element has no effect under such a policy.
    for _, attributes, _ in elements.found:
        assert not [name for name in attributes if name == "style" or name.startswith("on")]


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
