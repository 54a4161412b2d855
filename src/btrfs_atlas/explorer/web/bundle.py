"""The page and all that it consists of as one piece, for the server and for a file.

A browser that asks for each module and style sheet has waited for twenty answers before it can show
anything, and from disk it loads no modules at all. So the modules become one: each is put into
a function that returns what the module exports, and an import is taken from what another one
returned. That needs no more than to understand the few forms of `import` and `export` that are in
use. A content security policy allows nothing but this one script and the style sheets, by their
hashes, so that no text of the contents can ever become a program.
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

CONTENTS = "contents"
"""The id of the element with the contents of a page, which the module that starts it looks for."""

_LICENSES = ("vendor/leaflet/LICENSE",)
"""What has to go with code that others wrote."""


class Page(NamedTuple):
    """A page.

    Attributes:
        html: all of it.
        policy: the content security policy that it needs, and no more than that.
    """

    html: str
    policy: str


def page(main: str, contents: dict[str, Any], may_load: dict[str, str]) -> Page:
    """Return the page with some contents.

    Args:
        main: the module that starts it, a path in the folder STATIC.
        contents: what that gets, to be written as JSON.
        may_load: what else the page may do: sources by the names of the policy's directives.
    """
    frame = _frame(main)
    rules = {
        "default-src": "'none'",
        "script-src": frame.script,
        "style-src": frame.styles,
        **may_load,
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    policy = "; ".join(f"{directive} {sources}" for directive, sources in rules.items())
    return Page(f"{frame.before}{_json(contents)}{frame.behind}", policy)


def with_policy(shown: Page) -> str:
    """Return a page that has its policy in itself, as there is no server to tell it."""
    element = f'<meta http-equiv="Content-Security-Policy" content="{shown.policy}">'
    return _inserted(shown.html, '<meta charset="utf-8">\n', f"    {element}\n")


class _Frame(NamedTuple):
    """A page without its contents.

    Attributes:
        before: what is before them.
        behind: and behind.
        script: the hash of its script, as a policy names it.
        styles: the hashes of its style sheets.
    """

    before: str
    behind: str
    script: str
    styles: str


@cache
def _frame(main: str) -> _Frame:
    html = (STATIC / "index.html").read_text(encoding="utf-8")
    sheets = [_style(name) for name in _STYLE_SHEET.findall(html)]
    script = _in_element(bundle(main))
    html = _STYLE_SHEET.sub("", html)
    html = _inserted(
        html, "</title>\n", "".join(f"    <style>{sheet}</style>\n" for sheet in sheets)
    )
    before, end, behind = html.rpartition("  </body>")
    return _Frame(
        f'{before}    <script id="{CONTENTS}" type="application/json">',
        f'</script>\n    <script type="module">{script}</script>\n{end}{behind}',
        _hash(script),
        " ".join(_hash(sheet) for sheet in sheets),
    )


def bundle(name: str) -> str:
    """Return a module and all that it imports as one module without imports.

    Args:
        name: of the module, a path in the folder STATIC.
    """
    modules: dict[str, str] = {}
    _add(name, modules)
    return "\n".join([*_licenses(), "const modules = {};", *modules.values()])


def _add(name: str, modules: dict[str, str]) -> None:
    """Add a module as a function and its call, and before it those that it imports."""
    exports: list[str] = []

    def replaced(match: re.Match[str]) -> str:
        if match["declaration"]:
            exports.append(match["name"])
            return f"\n{match['declaration']}"
        if match["exported"]:
            exports.extend(_renamed(match["exported"], "{1}: {0}"))
            return "\n"
        if not match["path"]:
            raise ValueError(f"{name}: not understood: {match[0].strip()}")
        imported = posixpath.normpath(posixpath.join(posixpath.dirname(name), match["path"]))
        if imported not in modules:
            _add(imported, modules)
        names = match["all"] or f"{{ {', '.join(_renamed(match['imported'], '{0}: {1}'))} }}"
        return f"\nconst {names} = modules[{json.dumps(imported)}];"

    text = (STATIC / name).read_text(encoding="utf-8")
    body = _STATEMENT.sub(replaced, f"\n{text}")
    function = f"() => {{{body}\nreturn {{ {', '.join(exports)} }};\n}}"
    modules[name] = f"modules[{json.dumps(name)}] = ({function})();"


def _renamed(names: str, form: str) -> Iterator[str]:
    """Yield the names of a list, those with an `as` in this form."""
    for name in filter(None, (name.strip() for name in names.split(","))):
        old, renamed, new = name.partition(" as ")
        yield form.format(old, new) if renamed else old


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


def _hash(text: str) -> str:
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return f"'sha256-{digest}'"


def _inserted(html: str, behind: str, text: str) -> str:
    before, found, rest = html.partition(behind)
    if not found:
        raise ValueError(f"there is no {behind!r} in the page")
    return f"{before}{found}{text}{rest}"


_STYLE_SHEET = re.compile(r' *<link rel="stylesheet" href="([\w./-]+)">\n')
"""How the page names its style sheets."""

_STATEMENT = re.compile(
    r"\n(?:"
    r'import (?:\* as (?P<all>\w+)|\{(?P<imported>[^}]*)\}) from "(?P<path>\.{1,2}/[^"\n]+)";$'
    r"|export (?P<declaration>(?:const|class|(?:async )?function) (?P<name>\w+))"
    r"|export \{(?P<exported>[^}]*)\};$"
    r"|(?:import|export)\b.*$"
    r")",
    re.MULTILINE,
)
"""The forms of import and export, and any other. They begin a line; so the search is quick."""
