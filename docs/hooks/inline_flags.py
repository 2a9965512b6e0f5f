"""Keep command-line flags in inline code on one line; browsers break them after the dashes."""

import re
from typing import Any

INLINE_CODE = re.compile(r"<code>[^<]*--[^<]*</code>")
FLAG = re.compile(r"--[\w.\[\]-]+")


def on_page_content(content: str, **_: Any) -> str:
    """Return a page's HTML with every flag in a span that does not wrap."""
    return INLINE_CODE.sub(
        lambda match: FLAG.sub(r'<span class="flag">\g<0></span>', match[0]), content
    )
