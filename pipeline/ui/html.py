"""Elements of HTML as text, in functions named like them; all arguments are escaped except those named `html`."""

from __future__ import annotations

import base64
from collections.abc import Collection, Iterable, Sequence
from html import escape

from spikebridge.pipeline.base.display import printable
from spikebridge.pipeline.ui.style import STYLE_SHEET

POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
"""Content security policy of the page: a browser loads nothing and runs nothing, whatever a file's text held."""


def page(title: str, body_html: str) -> str:
    """Return a whole document."""
    return printable(
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(POLICY)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<link rel="icon" href="data:,">\n'  # otherwise browsers ask for favicon.ico
        f"<title>{escape(title)}</title>\n<style>{STYLE_SHEET}</style>\n</head>\n<body>\n<main>\n{body_html}\n</main>\n"
        "</body>\n</html>\n"
    )


def section(title: str, html: str, *, name: str = "") -> str:
    """Return a section with its heading; `name` becomes its class."""
    mark = f' class="{escape(name)}"' if name else ""
    return f"<section{mark}>\n<h2>{escape(title)}</h2>\n{html}\n</section>"


def paragraph(text: str, *, note: bool = False) -> str:
    """Return a paragraph; `note` sets it small."""
    return f"<p{' class=note' if note else ''}>{escape(text)}</p>"


def tags(texts: Iterable[tuple[str, bool]]) -> str:
    """Return labels in a row: (text, whether it is a warning)."""
    spans = (f'<span class="tag{" warn" if warn else ""}">{escape(text)}</span>' for text, warn in texts)
    return f'<div class="tags">{"".join(spans)}</div>'


def facts(pairs: Iterable[tuple[str, str]], *, wide: Sequence[str] = ()) -> str:
    """Return names and values as a definition list; empty values are left out, `wide` names get a line of their own."""
    items = (
        f"<div{' class=wide' if name in wide else ''}><dt>{escape(name)}</dt><dd>{escape(value)}</dd></div>"
        for name, value in pairs
        if value
    )
    return f'<dl class="facts">{"".join(items)}</dl>'


def table(head: Sequence[str], rows: Iterable[Sequence[str]], *, words: Collection[int] = ()) -> str:
    """Return a table of texts, the first column and those at the positions `words` left, others right, as numbers are.

    It scrolls where it is too wide.
    """

    def line(cells: Sequence[str], tag: str) -> str:
        kinds = (' class="words"' if column in words else "" for column in range(len(cells)))
        return "".join(f"<{tag}{kind}>{escape(cell)}</{tag}>" for kind, cell in zip(kinds, cells, strict=True))

    top, body = line(head, "th"), "\n".join(f"<tr>{line(row, 'td')}</tr>" for row in rows)
    return f'<div class="scroll"><table>\n<thead><tr>{top}</tr></thead>\n<tbody>\n{body}\n</tbody></table></div>'


def figure(html: str, *, title: str, caption: str = "") -> str:
    """Return a figure with title and caption beneath it."""
    return f"<figure>{html}<figcaption><b>{escape(title)}</b> {escape(caption)}</figcaption></figure>"


def figures(items: Iterable[str]) -> str:
    """Return figures in a grid of two columns, of one on narrow screens."""
    return '<div class="figures">\n' + "\n".join(items) + "\n</div>"


def polarities(on: str, off: str) -> str:
    """Return the legend of the colours of ON and OFF."""
    marks = ((on, "ON"), (off, "OFF"))
    return f'<p class="note key">{"".join(f"<span><i style=background:{c}></i>{name}</span>" for c, name in marks)}</p>'


def thumbnails(items: Iterable[tuple[str, str, bytes]]) -> str:
    """Return small PNGs in rows, enlarged without smoothing: (description, caption, PNG)."""
    cells = (
        f"<figure>{image(data, description=description)}<figcaption>{escape(caption)}</figcaption></figure>"
        for description, caption, data in items
    )
    return f'<div class="small">\n{"".join(cells)}\n</div>'


def preformatted(text: str) -> str:
    """Return text with its line breaks and spaces kept."""
    return f"<pre>{escape(text)}</pre>"


def folded(summary: str, html: str) -> str:
    """Return content that opens on demand, without a script."""
    return f"<details>\n<summary>{escape(summary)}</summary>\n{html}\n</details>"


def image(data: bytes, *, description: str, kind: str = "png") -> str:
    """Return an image embedded in the page; `kind` is png or gif."""
    text = base64.b64encode(data).decode()
    return f'<img src="data:image/{kind};base64,{text}" alt="{escape(description)}">'
