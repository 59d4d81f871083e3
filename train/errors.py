"""The errors of training: each says what was found, what was expected, and what to do."""

from __future__ import annotations

from collections.abc import Sequence


class TrainError(Exception):
    """A recipe, run folder, device or data set is wrong and the user can put it right; base of the family."""


class RecipeError(TrainError):
    """A recipe, an override or a grid is wrong; carries every problem, one sentence each, not only the first."""

    def __init__(self, source: str, problems: Sequence[str], *, what: str = "recipe") -> None:
        self.source = source
        self.problems = tuple(problems)
        count = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        super().__init__(f"{what} {source}: {count}\n" + "\n".join(f"  - {problem}" for problem in problems))


class ShardMismatchError(TrainError):
    """The shard set is not the one that the recipe, the run or `expect` asks for."""


class RunError(TrainError):
    """The run folder holds another run, something that is no run, or a damaged checkpoint."""


class DeviceError(TrainError):
    """The device asked for is not there."""


class MethodError(TrainError):
    """A method cannot work with this data: static images missing, channels that do not fit."""


class NetworkError(TrainError):
    """The recipe's network cannot be built for this shard set."""


class ReportError(TrainError):
    """A report cannot be written: packages for figures missing, or nothing to show."""


class ExportError(TrainError):
    """A run cannot be written in a format, or an exported file cannot be opened."""


class NonFiniteError(TrainError):
    """A loss became NaN or infinite; names the step, the loss terms and the layer."""


class DeviceMemoryError(TrainError):
    """The batch does not fit into the memory of the device; says what does."""


class DistributedError(TrainError):
    """The processes of one training do not find each other, or rank 0 gave up."""


class RunStoppedError(TrainError):
    """A signal, whose number it carries, ended the run early, with a checkpoint."""

    def __init__(self, message: str, *, signal: int) -> None:
        self.signal = signal
        super().__init__(message)
