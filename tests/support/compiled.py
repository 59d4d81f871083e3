"""Compile the Triton kernels of a traced step for GPUs that are not there, and print what the machine code takes.

    python compiled.py [--listed] CASE...

A case is one argument: "NETWORK METHOD PRECISION T B WIDTH TARGET...", e.g. "vgg_snn kt bf16 10 120 1.0 sm_90 sm_120",
or "count_events T SIZE TARGET..." for the kernel that counts stored events. With "--hardest" in front only the variant
of each kernel that takes most registers is compiled, once. Variants that an earlier case compiled for a target are left
out.

Each launch is compiled with the specialisation that the just-in-time compiler would choose (integers that are 1 or
divisible by 16, pointers as aligned as torch's), once per distinct launch and target. A line of JSON for each: kernel,
what tells its variants apart, target, registers, stack, shared memory and, with --listed of backward on NVIDIA,
barriers and loads, for which half as much time goes as for compiling. A process of its own, because the interpreter
that other tests ask for defines the kernels otherwise.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ["TRITON_INTERPRET"] = "0"

import torch
import triton
from pretended_device import Launch, PretendedShards, count_stored, take_step
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import MockTensor

from spikebridge.models import kernels_triton
from spikebridge.train.config import simulation_ranges
from spikebridge.train.config.settings import TrainSettings
from spikebridge.train.data import kernels_triton as simulating

CUOBJDUMP = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
SIZES = {"vgg_snn": (48, 101), "resnet18_snn": (48, 20), "scnn": (28, 1623), "nmnist_snn": (34, 10)}
TELLING = ("NORM", "POOL", "POTENTIAL", "FROM_AFTER", "SUMS", "GRAD_X")
HARDEST = {"forward": ["NORM", "POOL"], "backward": ["NORM", "SUMS"]}
"""The variant that takes most registers on every target; long tests compile all of them."""


class Driver:
    """What the compiler asks a GPU for."""

    def __init__(self, target: str) -> None:
        cuda = target.startswith("sm_")
        self.target = GPUTarget("cuda", int(target[3:]), 32) if cuda else GPUTarget("hip", target, 64)

    def get_current_device(self) -> str:
        """Tells targets apart in the compiler's cache."""
        return str(self.target)

    def get_current_stream(self, device: Any) -> int:
        """None that matters."""
        return 0

    def get_current_target(self) -> GPUTarget:
        """What to compile for."""
        return self.target


def resources(binary: bytes, *, listed: bool) -> dict[str, int]:
    """Registers, stack and shared memory of an NVIDIA kernel; barriers and loads where its code is to be listed."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(binary)
        file.flush()
        usage = subprocess.run([CUOBJDUMP, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
        found = {name.lower(): int(value) for name, value in re.findall(r"(REG|STACK|SHARED):(\d+)", usage)}
        if not listed:
            return found
        code = subprocess.run([CUOBJDUMP, "-sass", file.name], capture_output=True, text=True, check=True).stdout
    operations = re.findall(r"^\s+/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\d+\s+)?([A-Z][A-Z0-9_.]*)", code, flags=re.M)
    first = next((i for i, name in enumerate(operations) if name.startswith("STG")), len(operations))
    # what is read through the constant path is small and in the cache: rows of a layer's normalisation
    late = sum(name.startswith("LDG") and ".CONSTANT" not in name for name in operations[first:])
    return found | {
        "barriers": sum(name.startswith("BAR") for name in operations),
        "instructions": len(operations),
        "loads_after_store": late,
    }


def variant(launch: Launch) -> list[str]:
    """What tells a launch apart from others of its kernel."""
    return [name for name in TELLING if dict(launch.constants).get(name)]


def compile_launch(launch: Launch, target: str, seen: list[Any], *, listed: bool) -> dict[str, Any] | None:
    """What one launch takes on a target; None where its code was seen before."""
    constants = dict(launch.constants)
    if not target.startswith("sm_"):
        constants.pop("maxnreg", None)
    given = [MockTensor(each[1]) if isinstance(each, tuple) else each for each in launch.arguments]
    triton.runtime.driver.set_active(Driver(target))
    kernel = getattr(kernels_triton if hasattr(kernels_triton, launch.kernel) else simulating, launch.kernel)
    done = kernel.run(*given, grid=(1,), warmup=True, **constants)
    if done in seen:
        return None
    seen.append(done)
    found = {"kernel": launch.kernel, "variant": variant(launch), "T": constants.get("T"), "target": target}
    if target.startswith("sm_"):
        return found | resources(done.asm["cubin"], listed=listed and launch.kernel == "backward")
    registers = re.search(r"\.vgpr_count:\s+(\d+)", done.asm["amdgcn"])
    spilled = re.search(r"\.vgpr_spill_count:\s+(\d+)", done.asm["amdgcn"])
    assert registers
    assert spilled
    return found | {"reg": int(registers[1]), "stack": int(spilled[1])}


def trace_case(words: list[str]) -> tuple[list[Launch], list[str]]:
    """Distinct launches of a case, and the targets to compile them for."""
    if words[0] == "count_events":
        return count_stored(T=int(words[1]), size=int(words[2])).launches, words[3:]
    network, method, precision, T, B, width, *targets = words
    size, K = SIZES[network]
    shipped = simulation_ranges.PROFILES  # with what only fitted profiles have, the simulator's kernels do all they can
    steps = ((0.1, 0.1),) * simulation_ranges.MOST_STEPS
    shipped["saccades"] = replace(
        shipped["saccades"],
        steps=steps,
        appeared=True,
        either_sign=True,
        either_begin=True,
        blind_after=True,
        blurs_light=True,
    )
    settings = TrainSettings(
        method=method, model=network, epochs=10, batch_size=int(B), lr=1e-3, precision=precision, width=float(width)
    )
    trace = take_step(settings, PretendedShards(T=int(T), size=size, K=K, samples=2 * int(B), images=K))
    return list(dict.fromkeys(trace.launches)), targets


def main() -> None:
    """Trace, compile, print."""
    done: set[tuple[str, ...]] = set()
    seen: dict[str, list[Any]] = {}
    for case in [word for word in sys.argv[1:] if word != "--listed"]:
        hardest, words = case.startswith("--hardest "), case.removeprefix("--hardest ").split()
        launches, targets = trace_case(words)
        if hardest:
            chosen = [each for each in launches if variant(each) == HARDEST.get(each.kernel, [])]
            launches = list({each.kernel: each for each in chosen}.values())
        for target in targets:
            names = [(target, each.kernel, *variant(each)) for each in launches]
            for name, launch in zip(names, launches, strict=True):
                if name in done:
                    continue
                if found := compile_launch(launch, target, seen.setdefault(target, []), listed="--listed" in sys.argv):
                    print(json.dumps(found), flush=True)
            done.update(names)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
