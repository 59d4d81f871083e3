"""A process that trains after one or several plans (JSON); with RANK and WORLD_SIZE it is one of several."""

import json
import os
import signal
import sys
import time
from pathlib import Path

sys.path[:0] = [str(Path(__file__).resolve().parents[2] / "src"), str(Path(__file__).parent)]

import torch  # noqa: E402

torch.set_num_threads(1)

from fake_shards import FakeShardSet, tiny_recipe  # noqa: E402

from spikebridge.train.errors import RunStoppedError  # noqa: E402
from spikebridge.train.signals import EXIT_CODES, stop_on_signals  # noqa: E402
from spikebridge.train.trainer import epochs  # noqa: E402
from spikebridge.train.trainer import run as loop  # noqa: E402
from spikebridge.train.trainer.cuda_graph import DeviceStep  # noqa: E402

make_network = epochs.make_network


def main(plan):
    if plan.get("double"):
        epochs.make_network = lambda arguments, *, seed: make_network(arguments, seed=seed).double()
    if "port" in plan:
        os.environ["MASTER_PORT"] = plan["port"]
    if "hold_at" in plan:  # in that step, until a signal has come; with `hold_on` until a second one ends it
        real = epochs.Trainer._step

        def hold(self, index):
            real(self, index)
            if self.state.step >= plan["hold_at"] and os.environ.get("RANK", "0") == str(plan.get("hold_rank", 0)):
                Path(f"{plan['run']}.held").touch()
                while not self.stop.signal:
                    time.sleep(0.01)
                Path(f"{plan['run']}.heard").touch()
                while plan.get("hold_on"):
                    time.sleep(0.01)

        epochs.Trainer._step = hold
    if "die_at" in plan:  # the hard way, in the middle of a step
        before = epochs.Trainer._commit_or_stop

        def die(self):
            if self.state.step == plan["die_at"] and os.environ.get("RANK", "0") == str(plan.get("die_rank", 0)):
                os.kill(os.getpid(), signal.SIGKILL)
            before(self)

        epochs.Trainer._commit_or_stop = die
    if plan.get("on_device"):
        epochs.why_not_capturable, epochs.CudaGraphStep = lambda *_: None, DeviceStep
    shards = FakeShardSet(plan["shards"], **plan.get("sizes", {}))
    with stop_on_signals() as stop:
        loop.train(
            shards,
            tiny_recipe(**plan.get("recipe", {})),
            plan["run"],
            device="cpu",
            stop=stop,
            **plan.get("options", {}),
        )
    # A thread of a group that outlives the processes may abort the interpreter's end.
    names = [Path(f"/proc/self/task/{task}/comm").read_text() for task in os.listdir("/proc/self/task")]
    assert not any("gloo" in name for name in names), names


if __name__ == "__main__":
    try:
        for plan in json.loads(sys.argv[1]):
            main(plan)
    except RunStoppedError as stopped:
        print(stopped, file=sys.stderr)
        sys.exit(EXIT_CODES[stopped.signal])
