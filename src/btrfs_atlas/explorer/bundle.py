"""The page and all that it consists of as a single file, which a browser opens from disk.

From disk, a browser loads no modules from other files. So the modules become one: each is put into
a function that returns what the module exports, and an import is taken from what another one
returned. That needs no more than to understand the few forms of `import` and `export` that are in
use. A content security policy allows nothing but this one script and the style sheets, by their
hashes, so that no text of the contents can ever become a program, and the page can load nothing.
"""

from __future__ import annotations

import base64
import hashlib
import json
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

STATIC = Path(__file__).with_name("static")

MAIN = "export-main.js"
"""The module that starts the page; the contents are in the element that it looks for."""

_LICENSES = ("vendor/leaflet/LICENSE",)
"""What has to go with code that others wrote."""


def page(contents: dict[str, Any]) -> str:
    """Return the page with these contents, HTML.

    Args:
        contents: what the module MAIN gets, to be written as JSON.
    """
    html = (STATIC / "index.html").read_text(encoding="utf-8")
    sheets = [_style(name) for name in _STYLE_SHEET.findall(html)]
    script = _in_element(bundle(MAIN))
    html = _STYLE_SHEET.sub("", _MODULE.sub("", html))
    head = "".join(f"    <style>{sheet}</style>\n" for sheet in sheets)
    body = (
        f'    <script id="contents" type="application/json">{_json(contents)}</script>\n'
        f'    <script type="module">{script}</script>\n'
    )
    html = _inserted(html, '<meta charset="utf-8">\n', f"    {_policy(script, sheets)}\n")
    html = _inserted(html, "</title>\n", head)
    before, end, behind = html.rpartition("  </body>")
    return f"{before}{body}{end}{behind}"


def bundle(name: str) -> str:
    """Return a module and all that it imports as one module without imports.

    Args:
        name: of the module, a path in the folder STATIC.
    """
    modules: dict[str, str] = {}
    _add(name, modules)
    return "\n".join([*_licenses(), "const modules = {};", *modules.values()])


def _add(name: str, modules: dict[str, str]) -> None:
    """Add a module, and before it those that it imports."""
    text = (STATIC / name).read_text(encoding="utf-8")
    for match in _IMPORT.finditer(text):
        imported = _imported(name, match["path"])
        if imported not in modules:
            _add(imported, modules)
    modules[name] = _function(name, text)


def _function(name: str, text: str) -> str:
    """Return a module as a function, and its call."""
    exports: list[str] = []

    def declared(match: re.Match[str]) -> str:
        exports.append(match["name"])
        return match["declaration"]

    def listed(match: re.Match[str]) -> str:
        exports.extend(_renamed(match["names"], "{1}: {0}"))
        return ""

    def imported(match: re.Match[str]) -> str:
        module = f"modules[{json.dumps(_imported(name, match['path']))}]"
        if match["all"]:
            return f"const {match['all']} = {module};"
        return f"const {{ {', '.join(_renamed(match['names'], '{0}: {1}'))} }} = {module};"

    body = _IMPORT.sub(imported, text)
    body = _EXPORTS.sub(listed, _EXPORT.sub(declared, body))
    unknown = _ANY.search(body)
    if unknown is not None:
        raise ValueError(f"{name}: not understood: {unknown[0]}")
    returned = ", ".join(exports)
    return f"modules[{json.dumps(name)}] = (() => {{\n{body}\nreturn {{ {returned} }};\n}})();"


def _renamed(names: str, form: str) -> Iterator[str]:
    """Yield the names of a list, those with an `as` in this form."""
    for name in filter(None, (name.strip() for name in names.split(","))):
        old, renamed, new = name.partition(" as ")
        yield form.format(old, new) if renamed else old


def _imported(name: str, path: str) -> str:
    """Return the name of the module that a module imports by a relative path."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(name), path))


def _licenses() -> Iterator[str]:
    for name in _LICENSES:
        yield f"/* @license {name}\n{(STATIC / name).read_text(encoding='utf-8')}*/"


def _style(name: str) -> str:
    return _in_element((STATIC / name).read_text(encoding="utf-8"))


def _in_element(text: str) -> str:
    r"""Return a script or style sheet so that nothing in it can end its element.

    What could do that is in strings and comments alone, where a backslash changes nothing.
    """
    return re.sub(r"<(?=/(?:script|style)|!--)", r"<\\", text, flags=re.IGNORECASE)


def _json(contents: dict[str, Any]) -> str:
    """Return JSON of which nothing is markup."""
    return json.dumps(contents, separators=(",", ":"), allow_nan=False).replace("<", r"\u003c")


def _policy(script: str, sheets: list[str]) -> str:
    """Return the element that tells a browser what the page may do."""
    styles = " ".join(_hash(sheet) for sheet in sheets)
    policy = "; ".join(
        [
            "default-src 'none'",
            f"script-src {_hash(script)}",
            f"style-src {styles}",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
        ]
    )
    return f'<meta http-equiv="Content-Security-Policy" content="{policy}">'


def _hash(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def _inserted(html: str, behind: str, text: str) -> str:
    before, found, rest = html.partition(behind)
    if not found:
        raise ValueError(f"there is no {behind!r} in the page")
    return f"{before}{found}{text}{rest}"


# How the page names its parts.
_STYLE_SHEET = re.compile(r' *<link rel="stylesheet" href="static/([\w./-]+)">\n')
_MODULE = re.compile(
    r' *(?:<link rel="modulepreload" href="[\w./-]+">'
    r'|<script type="module" src="[\w./-]+"></script>)\n'
)

# Statements of modules; they begin a line.
_IMPORT = re.compile(
    r'^import (?:\* as (?P<all>\w+)|\{(?P<names>[^}]*)\}) from "(?P<path>\.{1,2}/[^"]+)";$',
    re.MULTILINE,
)
_EXPORT = re.compile(
    r"^export (?P<declaration>(?:const|class|(?:async )?function) (?P<name>\w+))", re.MULTILINE
)
_EXPORTS = re.compile(r"^export \{(?P<names>[^}]*)\};$", re.MULTILINE)
_ANY = re.compile(r"^(?:import|export)\b.*$", re.MULTILINE)
