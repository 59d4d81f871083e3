"""Who may import whom, what training needs, and how fast help answers."""

import ast
import re
import subprocess
import sys
from collections import defaultdict
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest
from conftest import ROOT

PACKAGES = {
    "pipeline": """
        base        :
        plugins     : base
        containers  : base
        events      : base
        images      : base
        ui          : base images
        formats     : base containers events
        shards      : base containers events
        datasets    : base events images shards
        checks      : base containers datasets events shards
        sharing     : base shards
        simulation  : base events formats images shards
        readers     : base containers datasets events formats images plugins
        measurement : base containers datasets events formats images readers
        interop     : datasets events formats readers shards
        inspection  : base containers datasets events formats readers shards ui
        cards       : base datasets readers shards
        preprocess  : base cards checks datasets events formats images readers shards ui
        prediction  : base datasets events formats preprocess readers shards
        derive      : base cards checks datasets events preprocess shards ui
        verbs       : base checks datasets derive inspection preprocess readers shards sharing simulation ui
    """,
    "train": """
        errors      :
        losses      :
        schedules   :
        statistics  :
        config      : errors
        signals     : errors
        data        : config errors losses
        runs        : config errors losses
        networks    : config data errors runs
        doctor      : errors networks runs
        export      : config errors networks runs
        methods     : config data errors losses networks runs schedules
        evaluation  : config data errors export networks runs statistics
        calibration : config data errors networks runs statistics
        matching    : calibration config data errors networks
        report      : calibration config data errors evaluation methods networks runs statistics
        trainer     : calibration config data errors evaluation losses methods networks runs schedules signals
        studies     : config data errors evaluation methods networks report runs signals statistics trainer
        verbs       : calibration config errors evaluation export matching networks report runs signals statistics studies trainer
    """,  # noqa: E501
}
"""From the ground up: a package, and those of its room that it imports."""
INSTALLED = {
    "pipeline": """
        base        : distributed
        containers  : h5py llvmlite numba numpy
        events      : numba numpy
        images      : PIL numpy
        ui          : PIL click numpy tqdm
        formats     : aedat h5py numba numpy
        shards      : h5py numpy
        checks      : h5py numpy
        datasets    : numpy
        sharing     : aiohttp fsspec huggingface_hub sshfs
        simulation  : PIL numba numpy sklearn
        readers     : numpy
        measurement : numpy
        interop     : numpy tonic
        inspection  : h5py matplotlib numpy
        preprocess  : numpy
        derive      : numpy
        verbs       : click
    """,
    "train": """
        losses      : torch
        data        : numba numpy torch triton
        runs        : mlflow numpy safetensors torch trackio wandb
        networks    : torch
        doctor      : torch
        export      : nir numpy torch
        methods     : torch
        evaluation  : numpy torch
        calibration : numpy torch
        matching    : numpy torch
        report      : captum matplotlib numpy sklearn threadpoolctl torch
        trainer     : numpy torch
        studies     : matplotlib numpy torch
        verbs       : click
    """,
}
"""Installed packages that each package imports, at once or when it needs them."""
ALLOWED = {
    "pipeline": (),
    "models": (),
    "train": (
        "models",
        "pipeline.base",
        "pipeline.ui",
        "pipeline.events",
        "pipeline.shards",
        "pipeline.sharing",
        "pipeline.prediction",
        "pipeline.measurement",
        "pipeline.simulation",
        "pipeline.plugins",
    ),
}
"""What the rooms may import of each other."""
LONGEST_CHAIN = 9
LARGEST_FOLDER = 13


def table(text: str) -> dict[str, set[str]]:
    rows = (line.split(":") for line in text.strip().splitlines())
    return {name.strip(): set(allowed.split()) for name, allowed in rows}


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@cache
def modules() -> dict[str, Path]:
    """Every module of the three rooms by its name below spikebridge."""
    return {name_of(path): path for room in ALLOWED for path in sorted((ROOT / room).rglob("*.py"))}


@cache
def imports(name: str) -> set[str]:
    """Full names of what a module imports, inside functions and for types alone, too."""
    found = set()
    for node in ast.walk(ast.parse(modules()[name].read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            found |= {one if one.removeprefix("spikebridge.") in modules() else node.module for one in inner}
    return found


def own_imports(name: str) -> set[str]:
    return {one.removeprefix("spikebridge.") for one in imports(name) if one.startswith("spikebridge.")}


def package(name: str) -> str:
    return ".".join(name.split(".")[:2])


@pytest.mark.parametrize("room", PACKAGES)
def test_packages_import_only_what_the_table_allows(room):
    allowed, used = table(PACKAGES[room]), defaultdict(set)
    for name in modules():
        top, _, rest = name.partition(".")
        own = rest.split(".")[0]
        if top != room or not own:
            continue
        for target in own_imports(name):
            if target.split(".")[0] == room:
                used[own] |= {target.split(".")[1]} - {own}
            else:
                assert any(f"{target}.".startswith(f"{other}.") for other in ALLOWED[room]), f"{name} imports {target}"
    assert {name: used[name] for name in allowed} == allowed, "the table and the code differ"
    assert set(used) <= set(allowed), "packages that the table lacks"


@pytest.mark.parametrize("room", PACKAGES)
def test_the_longest_chain_of_packages_is_short(room):
    allowed, depth = table(PACKAGES[room]), {}
    for name in TopologicalSorter(allowed).static_order():  # raises CycleError
        depth[name] = 1 + max((depth[other] for other in allowed[name]), default=0)
    assert max(depth.values()) <= LONGEST_CHAIN, depth


def test_no_two_modules_import_each_other():
    graph = {name: own_imports(name) & set(modules()) - {name} for name in modules()}
    list(TopologicalSorter(graph).static_order())  # raises CycleError, which names them


@pytest.mark.parametrize("room", PACKAGES)
def test_packages_need_only_the_installed_packages_of_the_table(room):
    used = defaultdict(set)
    for name in modules():
        if name.startswith(f"{room}."):
            used[name.split(".")[1]] |= {one.split(".")[0] for one in imports(name)}
    ours = {"spikebridge", *sys.stdlib_module_names}
    assert {name: found - ours for name, found in used.items() if found - ours} == table(INSTALLED[room])


def test_folders_are_small_and_names_say_something():
    vague = {"util", "utils", "helper", "helpers", "common", "misc"}
    folders = defaultdict(list)
    for name, path in modules().items():
        folders[path.parent.relative_to(ROOT)].append(path.stem)
        assert path.stem not in vague, name
        assert path.stem != path.parent.name, name
    crowded = {str(folder): len(stems) for folder, stems in folders.items() if len(stems) - 1 > LARGEST_FOLDER}
    verbs = {f"{room}/verbs" for room in PACKAGES}  # one file a verb, however many there are
    assert set(crowded) <= {"models", *verbs}, crowded


def test_every_verb_is_in_a_file_of_its_name():
    from spikebridge.cli import main

    for verb, command in main.commands.items():
        module = (command.callback or next(iter(command.commands.values())).callback).__module__
        assert module in {f"spikebridge.{room}.verbs.{verb.replace('-', '_')}" for room in PACKAGES} | {
            "spikebridge.train.verbs.shipped"
        }, verb


def loaded_by(code: str) -> set[str]:
    """Top-level packages in a fresh interpreter after running `code`."""
    script = f"import sys\n{code}\nprint(*{{name.split('.')[0] for name in sys.modules}})"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_help_imports_nothing_heavy():
    heavy = {"torch", "numba", "numpy", "h5py", "tonic", "webdataset", "PIL", "matplotlib", "sklearn", "scipy"}
    assert not loaded_by("import spikebridge.cli") & heavy


def test_a_conversion_worker_imports_neither_torch_nor_tonic():
    code = "import spikebridge.pipeline.preprocess.tasks, spikebridge.pipeline.events.loops.framing"
    assert not loaded_by(code) & {"torch", "tonic", "webdataset"}


def test_training_imports_nothing_but_what_a_gpu_machine_has_and_no_compiler():
    """Torch's own takes longer than many a training: torch's own AdamW imports it."""
    code = "import spikebridge.train as t, spikebridge.train.trainer.run, spikebridge.train.evaluation.evaluate\n"
    code += "import spikebridge.train.evaluation.score, spikebridge.train.studies.compare\n"
    code += "import spikebridge.models, spikebridge.pipeline.shards.reader, spikebridge.pipeline.shards.static_pool\n"
    code += "from spikebridge.train.methods import METHODS, find_method; [find_method(name) for name in METHODS]\n"
    code += "import torch; from spikebridge.train.networks.adamw import AdamW\n"
    code += "weight = torch.ones(2, requires_grad=True); weight.sum().backward(); optimizer = AdamW([weight])\n"
    code += "optimizer.step(); optimizer.zero_grad(); optimizer.load_state_dict(optimizer.state_dict())\n"
    code += "assert 'torch._dynamo' not in sys.modules"
    missing = {"tonic", "webdataset", "numba", "PIL", "matplotlib", "sklearn", "scipy", "pandas", "aedat"}
    assert not loaded_by(code) & (missing | {"distributed", "triton", "sympy", "networkx"})


def test_no_file_holds_the_marks_of_a_merge():
    """In a docstring they are no error of Python's."""
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "tests").rglob("*.py")]
    marks = re.compile(r"^(<{7} |>{7} )", re.M)
    assert not [str(path) for path in (*modules().values(), *pages) if marks.search(path.read_text())]
