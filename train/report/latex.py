"""Tables and texts as LaTeX, in ASCII alone: pdflatex knows few other characters, and which depends on packages."""

from __future__ import annotations

import unicodedata

from spikebridge.pipeline.base.display import show
from spikebridge.train.report.format import MOST_SHOWN, Rows

GREEK = "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau upsilon phi chi psi"
SIGNS = {
    **{sign: f"\\{sign}" for sign in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{
        "<": "$<$",
        ">": "$>$",
        "|": "$|$",
        "–": "--",
        "—": "---",
        "‘": "`",
        "’": "'",
        "“": "``",
        "”": "''",
        "\xa0": "~",
    },
    **{
        "ß": r"\ss{}",
        "æ": r"\ae{}",
        "Æ": r"\AE{}",
        "œ": r"\oe{}",
        "ø": r"\o{}",
        "Ø": r"\O{}",
        "ł": r"\l{}",
        "ı": r"\i{}",
    },
    **{"±": r"$\pm$", "−": "$-$", "√": r"$\surd$", "·": r"$\cdot$", "×": r"$\times$", "÷": r"$\div$"},
    **{"≤": r"$\leq$", "≥": r"$\geq$", "≠": r"$\neq$", "≈": r"$\approx$", "∞": r"$\infty$", "∈": r"$\in$"},
    **{"→": r"$\to$", "←": r"$\leftarrow$", "↔": r"$\leftrightarrow$", "⇒": r"$\Rightarrow$", "∆": r"$\Delta$"},
    **{"↑": r"$\uparrow$", "↓": r"$\downarrow$", "°": r"$^{\circ}$", "•": r"$\bullet$", "∂": r"$\partial$"},
    **{"∑": r"$\sum$", "§": r"\S{}", "©": r"\copyright{}", "£": r"\pounds{}", "†": r"\dag{}", "⁄": "/"},
    **{letter: f"$\\{name}$" for letter, name in zip("αβγδεζηθικλμνξπρστυφχψ", GREEK.split(), strict=True)},
    "ω": r"$\omega$",
    **{letter: f"$\\{unicodedata.name(letter).split()[-1].capitalize()}$" for letter in "ΓΔΘΞΠΣΦΨΩ"},
    "Λ": r"$\Lambda$",
}
"""What LaTeX reads otherwise, and signs that it has a word for."""
ACCENTS = dict(
    zip("\u0300\u0301\u0302\u0303\u0304\u0306\u0307\u0308\u030a\u030b\u030c\u0327", "`'^~=u.\"rHvc", strict=True)
)
"""Combining marks."""


def latex(text: str) -> str:
    """Return a cell or title as LaTeX shows it; a bracket at its beginning is no argument of the line before."""
    shown = spelled(show(text, most=MOST_SHOWN))
    return f"{{[}}{shown[1:]}" if shown.startswith("[") else shown


def spelled(text: str) -> str:
    """Return a text in the words of LaTeX; a character that has none becomes its number, `[U+4E2D]`."""
    return "".join(map(_word, text))


def _word(sign: str) -> str:
    if sign in SIGNS or sign.isascii():
        return SIGNS.get(sign, sign)
    base, mark = unicodedata.normalize("NFD", sign)[0], unicodedata.normalize("NFD", sign)[1:]
    if mark in ACCENTS and base.isascii() and base.isalpha():
        return f"\\{ACCENTS[mark]}{{{base}}}"
    kind, _, codes = unicodedata.decomposition(sign).rpartition(">")
    if kind and sign != (like := "".join(chr(int(code, 16)) for code in codes.split())):
        words = spelled(like)
        inner = words.strip("$")
        return {"<super": f"$^{{{inner}}}$", "<sub": f"$_{{{inner}}}$"}.get(kind, words)
    return f"[U+{ord(sign):04X}]"


def booktabs(rows: Rows) -> str:
    """Format a LaTeX table with the rules of the package booktabs, the first column left, the others right."""
    head, *body = [" & ".join(map(latex, row)) + r" \\" for row in rows]
    return "\n".join(
        [
            rf"\begin{{tabular}}{{l{'r' * (len(rows[0]) - 1)}}}",
            *(r"\toprule", head, r"\midrule", *body, r"\bottomrule"),
            r"\end{tabular}",
        ]
    )
