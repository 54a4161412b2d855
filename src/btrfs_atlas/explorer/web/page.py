"""The page and everything in it as one piece, for the server and for a file.

A browser that asks for each module and style sheet would wait for dozens of answers before it could
show anything, and from disk it loads no modules at all. So all style sheets become one, and all
modules become one: each module is put into a function that returns its exports, and an import takes
them from there. For that, only the few forms of `import` and `export` that the modules use have to
be understood.

A content security policy allows this one script and this one style sheet, by their hashes, and
nothing else: no text of the contents can become a program.
"""

from __future__ import annotations

import base64
import hashlib
import json
import posixpath
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

STATIC = Path(__file__).parents[1] / "static"
"""The folder of the page, its style sheets and its modules."""

CONTENTS = "contents"
"""The id of the element with the contents of a page, where the module that starts it finds them."""

_LICENSES = ("vendor/leaflet/LICENSE",)
"""Licences of vendored code, which have to go with it."""


class Page(NamedTuple):
    """A page.

    Attributes:
        html: The whole document.
        policy: The content security policy that it needs.
    """

    html: str
    policy: str


def build_page(main: str, contents: dict[str, Any], may_load: dict[str, str]) -> Page:
    """Return the page with some contents.

    Args:
        main: The module that starts it, a path in STATIC.
        contents: What that module gets, to be written as JSON.
        may_load: What else the page may load: sources by the names of the policy's directives.
    """
    frame = _frame(main)
    rules = {
        "default-src": "'none'",
        "script-src": frame.script,
        "style-src": frame.style,
        **may_load,
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    policy = "; ".join(f"{directive} {sources}" for directive, sources in rules.items())
    return Page(f"{frame.head}{_json(contents)}{frame.tail}", policy)


def with_policy(page: Page) -> str:
    """Return a page that states its policy itself, for where no server sends it."""
    element = f'<meta http-equiv="Content-Security-Policy" content="{page.policy}">'
    return _insert_after(page.html, '<meta charset="utf-8">\n', f"    {element}\n")


def join_modules(main: str) -> str:
    """Return a module and everything that it imports as one module without imports.

    Args:
        main: Path of the module in STATIC.

    Raises:
        ValueError: An import or export has a form that is not understood.
    """
    modules: dict[str, str] = {}
    _add_module(main, modules)
    return "\n".join([*_licenses(), "const modules = {};", *modules.values()])


class _Frame(NamedTuple):
    """A page without its contents.

    Attributes:
        head: The document up to the contents.
        tail: The document after them.
        script: Hash of the script, as a policy names it.
        style: Hash of the style sheet.
    """

    head: str
    tail: str
    script: str
    style: str


@cache
def _frame(main: str) -> _Frame:
    html = (STATIC / "index.html").read_text(encoding="utf-8")
    style = _in_element("\n".join(_read(path) for path in _STYLE_SHEET.findall(html)))
    script = _in_element(join_modules(main))
    html = _STYLE_SHEET.sub("", html)
    html = _insert_after(html, "</title>\n", f"    <style>{style}</style>\n")
    head, body_end, rest = html.rpartition("  </body>")
    return _Frame(
        f'{head}    <script id="{CONTENTS}" type="application/json">',
        f'</script>\n    <script type="module">{script}</script>\n{body_end}{rest}',
        _hash(script),
        _hash(style),
    )


def _add_module(path: str, modules: dict[str, str]) -> None:
    """Add a module as the call of a function, after those that it imports."""
    exports: list[str] = []

    def replacement(match: re.Match[str]) -> str:
        if match["declaration"]:
            exports.append(match["name"])
            return f"\n{match['declaration']}"
        if match["exported"]:
            exports.extend(_renamed(match["exported"], "{1}: {0}"))
            return "\n"
        if not match["path"]:
            raise ValueError(f"{path}: not understood: {match[0].strip()}")
        imported = posixpath.normpath(posixpath.join(posixpath.dirname(path), match["path"]))
        if imported not in modules:
            _add_module(imported, modules)
        names = match["all"] or f"{{ {', '.join(_renamed(match['imported'], '{0}: {1}'))} }}"
        return f"\nconst {names} = modules[{json.dumps(imported)}];"

    body = _STATEMENT.sub(replacement, _COMMENT.sub("", f"\n{_read(path)}"))
    function = f"() => {{{body}\nreturn {{ {', '.join(exports)} }};\n}}"
    modules[path] = f"modules[{json.dumps(path)}] = ({function})();"


def _renamed(names: str, form: str) -> Iterator[str]:
    """Yield the names of a list, those with an `as` in this form."""
    for name in filter(None, (name.strip() for name in names.split(","))):
        old, renamed, new = name.partition(" as ")
        yield form.format(old, new) if renamed else old


def _licenses() -> Iterator[str]:
    for path in _LICENSES:
        yield f"/* @license {path}\n{_read(path)}*/"


def _read(path: str) -> str:
    return (STATIC / path).read_text(encoding="utf-8")


def _in_element(text: str) -> str:
    r"""Return a script or style sheet in which nothing can end its element.

    Only strings and comments can hold what would, and there a backslash changes nothing.
    """
    return re.sub(r"<(?=/(?:script|style)|!--)", r"<\\", text, flags=re.IGNORECASE)


def _json(contents: dict[str, Any]) -> str:
    """Return JSON in which nothing is markup."""
    return json.dumps(contents, separators=(",", ":"), allow_nan=False).replace("<", r"\u003c")


def _hash(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def _insert_after(html: str, mark: str, text: str) -> str:
    before, found, rest = html.partition(mark)
    if not found:
        raise ValueError(f"the page has no {mark!r}")
    return f"{before}{found}{text}{rest}"


_STYLE_SHEET = re.compile(r' *<link rel="stylesheet" href="([\w./-]+)">\n')
"""A link of the page to a style sheet."""

_COMMENT = re.compile(r"\n[ \t]*/(?:/.*|\*(?! @preserve)[^*]*\*+(?:[^/*][^*]*\*+)*/[ \t]*)(?=\n)")
"""A comment that has its lines to itself. The browser does not need half a megabyte of them."""

_STATEMENT = re.compile(
    r"\n(?:"
    r'import (?:\* as (?P<all>\w+)|\{(?P<imported>[^}]*)\}) from "(?P<path>\.{1,2}/[^"\n]+)";$'
    r"|export (?P<declaration>(?:const|class|(?:async )?function) (?P<name>\w+))"
    r"|export \{(?P<exported>[^}]*)\};$"
    r"|(?:import|export)\b.*$"
    r")",
    re.MULTILINE,
)
"""Every import and export. It begins a line, so that the search is quick."""
