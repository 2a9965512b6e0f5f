"""Convert formulas to MathML while the site is built: no script, and nothing to download."""

import html
import re
from typing import Any

from latex2mathml.converter import convert

# The output of pymdownx.arithmatex for `$...$` and `$$...$$`.
FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.S)
PLAIN_BAR = re.compile(r"(?<!\\left)(?<!\\right)\\([lr])Vert")
ANGLES = {"&#x027E8;": "prefix", "&#x027E9;": "postfix"}
FUNCTION = re.compile(r"(<msub>)?<m[io]>([a-z]{2,})</m[io]>")  # log, cos, softmax
OPENING = ("<mrow>", "<math", "&#x00028;</mo>")


def on_page_content(content: str, **_: Any) -> str:
    """Return a page's HTML with its formulas converted."""
    return FORMULA.sub(_convert, content)


def to_mathml(formula: str, display: str) -> str:
    """Convert LaTeX to MathML, with delimiters that browsers set as delimiters.

    latex2mathml emits the bars of `\\lVert x \\rVert^2` as plain operators. A browser takes them
    for infix operators that stretch, and a bar with an exponent hangs below the line.
    """
    sides = iter(PLAIN_BAR.findall(formula))
    mathml = convert(formula, display=display)
    mathml = re.sub(
        "<mo>&#x02016;</mo>",
        lambda _: _delimiter("&#x02016;", "prefix" if next(sides) == "l" else "postfix"),
        mathml,
    )
    for angle, form in ANGLES.items():
        mathml = mathml.replace(f"<mi>{angle}</mi>", _delimiter(angle, form))
    mathml = mathml.replace("<mo>&#x0002F;</mo>", '<mo lspace="0em" rspace="0em">&#x0002F;</mo>')
    return FUNCTION.sub(_space_function, mathml)


def _delimiter(character: str, form: str) -> str:
    return f'<mo stretchy="false" fence="true" form="{form}">{character}</mo>'


def _space_function(match: re.Match) -> str:
    """Return a function's name, spaced as in TeX: thin, but none at a parenthesis."""
    subscript, name = match.groups()
    before, after = match.string[: match.start()], match.string[match.end() :]
    if subscript:
        after = after.partition("</msub>")[2]
    left = "0em" if before.endswith(OPENING) else "0.167em"
    right = "0em" if re.match(r"(<mrow>)?<mo[^>]*>&#x00028;", after) else "0.167em"
    return f'{subscript or ""}<mo lspace="{left}" rspace="{right}">{name}</mo>'


def _convert(match: re.Match) -> str:
    tag, formula = match.groups()
    display = "block" if tag == "div" else "inline"
    return f'<{tag} class="formula">{to_mathml(html.unescape(formula), display)}</{tag}>'
