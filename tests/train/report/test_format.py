"""Tables as LaTeX reads them."""

from spikebridge.train.report.format import booktabs


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
