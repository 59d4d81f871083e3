"""LaTeX of tables: nothing in a name of a row keeps pdflatex from its work, and nothing is lost."""

import shutil
import subprocess

import pytest

from spikebridge.train.report.latex import ACCENTS, SIGNS, booktabs, latex, spelled


def test_what_latex_reads_otherwise_is_escaped():
    table = booktabs([("row", "test %"), ("[a_b] & c", "91.0 ± 0.5"), ("\\input{x}", "−1.2 [−2.0, –]")])
    assert table.splitlines() == [
        r"\begin{tabular}{lr}",
        r"\toprule",
        r"row & test \% \\",
        r"\midrule",
        r"{[}a\_b] \& c & 91.0 $\pm$ 0.5 \\",
        r"\textbackslash{}input\{x\} & $-$1.2 [$-$2.0, --] \\",
        r"\bottomrule",
        r"\end{tabular}",
    ]


def test_other_characters_have_words_or_numbers():
    assert latex("lr ≤ 1e−3 × µ") == r"lr $\leq$ 1e$-$3 $\times$ $\mu$"
    assert latex("Gauß, Ångström, Škoda") == r"Gau\ss{}, \r{A}ngstr\"{o}m, \v{S}koda"
    assert latex("x² 10⁻³ H₂O ½ … a<b") == r"x$^{2}$ 10$^{-}$$^{3}$ H$_{2}$O 1/2 ... a$<$b"
    assert spelled("中∇") == "[U+4E2D][U+2207]"
    assert spelled("".join(map(chr, range(32, 0x3000)))).isascii()


@pytest.mark.long
@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex here")
def test_plain_pdflatex_takes_every_character(tmp_path):
    every = [*SIGNS, *(f"e{mark}" for mark in ACCENTS), *map(chr, range(0xA0, 0x2300)), "中"]
    rows = [("name", "value"), *((latex(sign), "1") for sign in every)]
    body = "\n\n".join(latex(sign) for sign in every) + "\n\n" + booktabs([("[a] ≤ b", "µ"), *rows[1:9]])
    text = f"\\documentclass{{article}}\n\\usepackage{{booktabs}}\n\\begin{{document}}\n{body}\n\\end{{document}}\n"
    (tmp_path / "a.tex").write_text(text)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "a.tex"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", check=False)
    assert done.returncode == 0, done.stdout[-2000:]
