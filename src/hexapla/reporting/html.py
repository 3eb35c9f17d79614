"""Markdown to one HTML page that loads nothing else: style and pictures are inside."""

import base64
import re
from collections.abc import Mapping, Sequence
from html import escape
from itertools import pairwise
from string import Template
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.renderer import RendererHTML
from markdown_it.token import Token

_PAGE = Template("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>$title</title>
<style>
:root { color-scheme: light dark; --ink: #1d2127; --soft: #5b6470; --line: #e1e5ea; --paper: #fff;
  --band: #f6f7f9; --mark: #b34700; }
@media (prefers-color-scheme: dark) { :root { --ink: #e4e7eb; --soft: #9aa4b1; --line: #323842;
  --paper: #16191d; --band: #1e2228; --mark: #ff9b5e; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 3rem 1.25rem 5rem; max-width: 62rem; background: var(--paper);
  color: var(--ink); font: 16px/1.6 system-ui, -apple-system, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
h1 { font-size: 1.9rem; line-height: 1.25; margin: 0 0 1.5rem; letter-spacing: -0.01em; }
h2 { font-size: 1.35rem; margin: 3rem 0 0.75rem; padding-top: 1.25rem; border-top: 1px solid var(--line); }
h3 { font-size: 1.05rem; margin: 2.25rem 0 0.25rem; }
h1 + h2 { margin-top: 1.5rem; }
p { max-width: 46rem; margin: 0.5rem 0 1rem; }
h3 + p { color: var(--soft); }
a { color: var(--mark); }
code { font-size: 0.9em; background: var(--band); padding: 0.1em 0.35em; border-radius: 4px;
  overflow-wrap: anywhere; }
.wide { overflow-x: auto; margin: 0.75rem 0 1.5rem; }
table { border-collapse: collapse; font-size: 0.9rem; font-variant-numeric: tabular-nums; min-width: 60%; }
th, td { padding: 0.4rem 0.8rem; border-bottom: 1px solid var(--line); vertical-align: top; }
th { color: var(--soft); font-weight: 600; vertical-align: bottom; border-bottom: 2px solid var(--line); }
td:first-child, td[style*="right"] { white-space: nowrap; }
tbody tr:hover { background: var(--band); }
td strong { color: var(--mark); }
img { display: block; max-width: 100%; margin: 0.75rem 0 1.5rem; padding: 0.75rem; background: #fff;
  border: 1px solid var(--line); border-radius: 8px; }
p:has(> img) { max-width: none; }
</style>
</head>
<body>
<main>
$body</main>
</body>
</html>
""")


def page(markdown: str, pictures: Mapping[str, bytes]) -> str:
    """One HTML page.

    Args:
        markdown: CommonMark with tables; HTML in it is shown as text, never taken as markup.
        pictures: PNG bytes by the address that the Markdown gives them.
    """
    reader = MarkdownIt("commonmark", {"html": False}).enable("table")
    reader.add_render_rule("table_open", _before("<div class=wide>"))
    reader.add_render_rule("table_close", _after("</div>"))
    tokens = reader.parse(markdown)
    for token in _all(tokens):
        if token.type == "image" and (address := str(token.attrs["src"])) in pictures:
            token.attrs["src"] = "data:image/png;base64," + base64.b64encode(pictures[address]).decode()
    _name_headings(tokens)
    title = next((tokens[i + 1].content for i, t in enumerate(tokens) if t.tag == "h1"), "Report")
    body = reader.renderer.render(tokens, reader.options, {})
    return _PAGE.substitute(title=escape(title.replace("\\", "")), body=body)


def _name_headings(tokens: Sequence[Token]) -> None:
    """Anchors as GitHub makes them, so that one link works in both; the second of a name gets a number."""
    seen: dict[str, int] = {}
    for opened, inside in pairwise(tokens):
        if opened.type == "heading_open":
            words = re.sub(r"[^\w\s-]", "", inside.content.lower())
            name = re.sub(r"\s", "-", words.strip())
            count = seen[name] = seen.get(name, -1) + 1
            opened.attrSet("id", f"{name}-{count}" if count else name)


def _all(tokens: Sequence[Token]) -> list[Token]:
    return [each for token in tokens for each in (token, *(token.children or ()))]


def _before(text: str) -> Any:
    def rule(renderer: RendererHTML, tokens: Sequence[Token], position: int, options: Any, _env: Any) -> str:
        return f"{text}\n{renderer.renderToken(tokens, position, options, _env)}"

    return rule


def _after(text: str) -> Any:
    def rule(renderer: RendererHTML, tokens: Sequence[Token], position: int, options: Any, _env: Any) -> str:
        return f"{renderer.renderToken(tokens, position, options, _env)}{text}\n"

    return rule
