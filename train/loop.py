"""One run from recipe to result."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from train.errors import RunError
from train.evaluation import open_shards
from train.initialization import read_start, record_start, recorded_start, require_same_start, start_from
from train.networks import choose_device
from train.recipes import Recipe
from train.runs import RunFolder, read_result, require_shards
from train.session import Session

log = logging.getLogger(__name__)

Progress = Callable[..., Any]
"""Called as tqdm is: `progress(total=, initial=, desc=, unit=)` gives something with update, set_postfix and close."""


def train(
    shards: Any,
    recipe: Recipe,
    run_dir: str | Path,
    *,
    device: str = "auto",
    expect: str | None = None,
    progress: Progress | None = None,
    overwrite: bool = False,
    residence: str = "auto",
    init: str | Path | None = None,
) -> dict[str, Any]:
    """Train, validate after each epoch, score the test split once; continue an unfinished run, return a finished one.

    On the CPU, and with the same number of threads, an interrupted run ends with the same bits as an uninterrupted one.

    Args:
        shards: shard set, open or as a path; nothing is written to it.
        recipe: what to do.
        run_dir: the run folder, new or of the same run; its layout is described in `train.runs`.
        device: `auto` (CUDA when present), `cpu`, `cuda` or `cuda:N`.
        expect: refuse a shard set with another ID (at least 12 digits of it).
        progress: a tqdm-like callable; silent without.
        overwrite: start again when the folder holds a run.
        residence: where event frames are kept, `auto`, `host` or `disk`; does not change the result.
        init: begin with the best weights of this finished run, where they fit; see `train.initialization`.

    Returns:
        The content of result.json.

    Raises:
        ShardMismatchError: the shard set is not the recipe's, the run's or the expected one.
        RunError: the folder holds another run or no run, or cannot be written.
        MethodError: the method cannot work with this shard set.
        DeviceError: no such device.
        NetworkError: `init` holds another architecture.
        NonFiniteError: a loss became NaN or infinite.
        KeyboardInterrupt: passed on; the last finished epoch is safe.
    """
    shards = open_shards(shards)
    require_shards(shards, recipe.shards, expect=expect)
    chosen = choose_device(device)
    run = RunFolder(run_dir)
    if run.path.resolve().is_relative_to(Path(shards.path).resolve()):
        raise RunError(f"{run.path} lies inside the shard set {shards.path}, which is read only; choose another folder")
    start = None if init is None else read_start(init)
    status = run.status(recipe, shards.id, overwrite=overwrite)
    require_same_start(run, start, status)
    if status == "finished":
        log.info("%s is finished already", run.path)
        return read_result(run.path)
    session = Session(shards, recipe.train, run, device=chosen, residence=residence)
    began = start_from(start, session.network, shards.classes) if start and status == "new" else None
    run.claim(recipe, overwrite=overwrite)
    if status == "new":
        record_start(run, began)
    session.restore()
    bar = (progress or _Silent)(
        total=session.steps,
        initial=session.at.step,
        desc=f"{recipe.train.method} seed {recipe.train.seed}",
        unit="step",
    )
    try:
        while session.at.epoch < recipe.train.epochs:
            session.run_epoch(bar)
        result = {**session.result(recipe), "init": recorded_start(run)}
    except KeyboardInterrupt:
        log.warning("stopped after epoch %d; the same command continues %s", session.at.epoch, run.path)
        raise
    finally:
        bar.close()
    run.finish(result)
    return result


class _Silent:
    """Stands in for a progress bar."""

    def __init__(self, **_: Any) -> None:
        pass

    def update(self, n: int) -> None:
        """Nothing."""

    def set_postfix(self, values: dict[str, str]) -> None:
        """Nothing."""

    def close(self) -> None:
        """Nothing."""
