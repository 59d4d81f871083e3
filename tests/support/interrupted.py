"""A run that is stopped after a step and continued, and the same run in one go."""

import pytest

from spikebridge.train.errors import RunStoppedError
from spikebridge.train.signals import StopRequest
from spikebridge.train.trainer.run import train


class Stopper:
    """A progress bar that asks for an end after `steps` steps."""

    disable = True

    def __init__(self, request, steps):
        self._request, self._left = request, steps

    def __call__(self, **_):
        return self

    def update(self, n):
        self._left -= n
        if self._left == 0:
            self._request.ask(15)

    def set_postfix(self, values):
        pass

    def close(self):
        pass


def train_in_two_sittings(shards, recipe, run, *, step):
    """Stop after `step` steps, then continue by a new process."""
    request = StopRequest()
    with pytest.raises(RunStoppedError):
        train(shards, recipe, run, device="cpu", stop=request, progress=Stopper(request, step))
    return train(shards, recipe, run, device="cpu")
