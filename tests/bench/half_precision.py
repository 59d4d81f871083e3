"""Accuracy of trainings in bf16 on a CPU, seed by seed beside the same in fp32; a script, not a target of make.

Command:   python tests/bench/half_precision.py --shards SHARDS --out DIR [--recipes digits,best] [--seeds 0,1,2,3,4]
           [--write docs/results/precision-DATE]
Bf16:      a CPU without units for it takes many times as long for convolutions in it. Here they, and linear layers, are
           computed in fp32 on numbers that were rounded to bf16, and rounded again: a product of two numbers of bf16
           is exact in fp32, so that this is what such units compute, but for the order of sums. --native leaves
           convolutions to torch.
Runs:      ordinary run folders in DIR; what is finished is kept, so that an interrupted command continues.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "src"))

from rounds import machine  # isort: skip  (sets the number of threads)

import torch
from torch import Tensor, nn

from spikebridge.train.config.recipes import load_recipe, override
from spikebridge.train.statistics import difference, mean_and_std
from spikebridge.train.trainer.run import train

PACKAGES = ("torch", "numpy")
FIGURES = {"test": "test_accuracy", "validation": "validation_accuracy"}


@contextmanager
def units_for_bf16() -> Iterator[None]:
    """Inside the block, convolutions and linear layers under autocast are what units for bf16 compute; see above."""
    conv, linear = nn.Conv2d._conv_forward, nn.Linear.forward

    def rounded(x: Tensor) -> Tensor:
        return x.to(torch.bfloat16).float()  # and so is the gradient, on its way back

    def by_units(compute: Callable[..., Tensor], *tensors: Tensor | None) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            return compute(*(None if x is None else rounded(x) for x in tensors)).to(torch.bfloat16)

    def conv_forward(self: nn.Conv2d, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if not torch.is_autocast_enabled("cpu"):
            return conv(self, x, weight, bias)
        return by_units(lambda *given: conv(self, *given), x, weight, bias)

    def linear_forward(self: nn.Linear, x: Tensor) -> Tensor:
        if not torch.is_autocast_enabled("cpu"):
            return linear(self, x)
        return by_units(nn.functional.linear, x, self.weight, self.bias)

    nn.Conv2d._conv_forward, nn.Linear.forward = conv_forward, linear_forward
    try:
        yield
    finally:
        nn.Conv2d._conv_forward, nn.Linear.forward = conv, linear


def run(shards: str, out: Path, recipe: str, precision: str, seed: int) -> dict[str, Any]:
    """Train one run, or take it where it is finished; returns its row."""
    chosen = override(load_recipe(recipe), precision=precision, seed=seed)
    result = train(shards, chosen, out / f"{recipe}-{precision}-seed{seed}", device="cpu")
    assert (result["precision"], result["backend"]) == (precision, "numba")
    row = {"recipe": recipe, "precision": precision, "seed": seed, "shard_set": result["shard_set"]}
    return row | {name: result[figure] for name, figure in FIGURES.items()} | {"samples": result["samples"]}


def table(rows: Sequence[dict[str, Any]], facts: Sequence[str]) -> str:
    """The rows as Markdown: mean and standard deviation over seeds, and differences seed by seed."""
    lines = ["| recipe | seeds | split | fp32 % | bf16 % | bf16 − fp32, points | seed by seed |", "|---" * 7 + "|"]
    for recipe in dict.fromkeys(row["recipe"] for row in rows):
        for split in FIGURES:
            found = {
                kind: {row["seed"]: row[split] for row in rows if (row["recipe"], row["precision"]) == (recipe, kind)}
                for kind in ("fp32", "bf16")
            }
            gain = difference(found["bf16"], found["fp32"])
            interval = "" if gain["low"] is None else f" [{100 * gain['low']:+.1f}, {100 * gain['high']:+.1f}]"
            cells = [recipe, ", ".join(map(str, sorted(found["fp32"]))), split]
            cells += [_spread(found[kind].values()) for kind in ("fp32", "bf16")]
            cells += [f"{100 * gain['mean']:+.1f}{interval}", ", ".join(f"{100 * v:+.1f}" for v in gain["values"])]
            lines.append(f"| {' | '.join(cells)} |".replace("-", "−"))
    return "\n".join(["# Trainings in bf16 beside fp32, recordings SIMULATED", "", *lines, "", *facts]) + "\n"


def _spread(values: Any) -> str:
    mean, std = mean_and_std(list(values))
    return f"{100 * mean:.1f}" + ("" if std is None else f" ± {100 * std:.1f}")


def main() -> None:
    """Train what is left, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shards", required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--recipes", default="digits,best")
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--native", action="store_true")
    parser.add_argument("--write", type=Path, metavar="FILE", help="without its suffix; .md and .json are written")
    given = parser.parse_args()
    rows = []
    for seed in map(int, given.seeds.split(",")):
        for recipe in given.recipes.split(","):
            for precision in ("fp32", "bf16"):
                if given.native:
                    rows.append(run(given.shards, given.out, recipe, precision, seed))
                else:
                    with units_for_bf16():
                        rows.append(run(given.shards, given.out, recipe, precision, seed))
                print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    held_out = ", ".join(f"{rows[0]['samples'][split]} {split}" for split in FIGURES)
    facts = [
        f"- {held_out} recordings, SIMULATED (shard set {rows[0]['shard_set'][:12]}). The same recordings, weights and "
        "order in both precisions of a seed. Mean ± standard deviation over seeds (n − 1); difference with its 95 % "
        "interval (Student's t, seed by seed).",
        "- bf16: the neurons by the numba kernels, stored in 16 bits; convolutions and linear layers "
        + ("by torch." if given.native else "in fp32 on rounded numbers and rounded again, as units for bf16 compute."),
        "- Command: python tests/bench/half_precision.py --shards SHARDS --out DIR --write FILE. "
        + "; ".join(f"{name} {value}" for name, value in machine(PACKAGES).items() if name != "load")
        + ".",
    ]
    text = table(rows, facts)
    print(text)
    if given.write:
        given.write.with_suffix(".md").write_text(text)
        given.write.with_suffix(".json").write_text(json.dumps({"rows": rows, "facts": facts}, indent=1) + "\n")


if __name__ == "__main__":
    main()
