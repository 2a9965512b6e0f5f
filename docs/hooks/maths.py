"""Formulas become MathML while the site is built: no script, and nothing to download."""

import html
import re
from typing import Any

from latex2mathml.converter import convert

# What pymdownx.arithmatex leaves of `$...$` and `$$...$$`.
FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.S)


def on_page_content(content: str, **_: Any) -> str:
    """Return a page's HTML with its formulas converted."""
    return FORMULA.sub(_convert, content)


def _convert(found: re.Match) -> str:
    tag, formula = found.groups()
    display = "block" if tag == "div" else "inline"
    return f'<{tag} class="formula">{convert(html.unescape(formula), display=display)}</{tag}>'
