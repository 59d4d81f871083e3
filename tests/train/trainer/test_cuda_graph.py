"""The step that a CUDA graph would hold, on the CPU: the same function of tensors, unrecorded."""

import contextlib
import dataclasses
import warnings
import weakref
from types import SimpleNamespace

import pytest
import torch
from device_steps import CPU, DROPOUT, RECIPE, Watched, on_device  # noqa: F401
from fake_shards import FakeShardSet, tiny_recipe
from run_folders import same_run
from torch.utils._python_dispatch import TorchDispatchMode

from spikebridge.models import backends
from spikebridge.train.data.batches import TrainingBatches
from spikebridge.train.errors import DeviceError, DeviceMemoryError, NonFiniteError, RunStoppedError
from spikebridge.train.evaluation.adaptation import adapt_and_score
from spikebridge.train.evaluation.recalibration import recalibrate
from spikebridge.train.evaluation.score import split_frames
from spikebridge.train.methods import find_method, kt
from spikebridge.train.networks.build import make_network, network_arguments
from spikebridge.train.runs.folder import read_metrics
from spikebridge.train.signals import StopRequest
from spikebridge.train.trainer import epochs, step
from spikebridge.train.trainer.cuda_graph import DeviceStep, why_not_capturable
from spikebridge.train.trainer.distributed import Distributed
from spikebridge.train.trainer.memory import is_out_of_memory
from spikebridge.train.trainer.run import train


@pytest.mark.usefixtures("on_device")
@pytest.mark.parametrize(
    "recipe",
    [
        pytest.param({}, id="kt"),
        pytest.param({"method": "event_only"}, id="event_only"),
        pytest.param({"model": "vgg_snn", "width": 0.0625, "sliding": "step"}, id="vgg"),
        pytest.param(DROPOUT, id="dropout"),
        pytest.param({"precision": "fp16"}, id="fp16"),
        pytest.param({"method": "tsm"}, id="tsm"),
        pytest.param({"method": "distill", "teacher_steps": 2}, id="distill"),
        pytest.param({"method": "pretrain"}, id="pretrain"),
        pytest.param({"method": "simulate_pretrain"}, id="simulate_pretrain"),
        pytest.param({"method": "simulate_kt"}, id="simulate_kt"),
    ],
)
def test_the_device_step_takes_the_same_updates(tmp_path, recipe):
    shards, chosen = FakeShardSet(tmp_path / "shards"), tiny_recipe(**RECIPE, **recipe, epochs=2)
    train(shards, chosen, tmp_path / "plain", device="cpu", graph=False)
    assert Watched.taken == ()
    train(shards, chosen, tmp_path / "device", device="cpu", residence="device")
    assert Watched.taken == tuple(range(10))  # the partial batches are among them
    same_run(tmp_path / "plain", tmp_path / "device")


@pytest.mark.usefixtures("on_device")
@pytest.mark.parametrize("recipe", [{}, {"method": "event_only", "augmentation": "crop+cutmix"}], ids=str)
@pytest.mark.parametrize("residence", ["host", "disk"])
def test_batches_that_are_copied_into_what_a_recording_reads_are_the_same(tmp_path, monkeypatch, residence, recipe):
    """With the thread that reads ahead."""
    shards, chosen = FakeShardSet(tmp_path / "shards"), tiny_recipe(**RECIPE, **recipe, epochs=2)
    train(shards, chosen, tmp_path / "plain", device="cpu", graph=False)
    monkeypatch.setattr(step, "READ_AHEAD_FOR", {"cpu"})
    train(shards, chosen, tmp_path / "held", device="cpu", residence=residence)
    assert Watched.taken == tuple(range(10))
    same_run(tmp_path / "plain", tmp_path / "held")


@pytest.mark.usefixtures("on_device")
def test_a_run_that_stopped_continues_with_the_same_bits(tmp_path):
    shards, chosen = FakeShardSet(tmp_path / "shards"), tiny_recipe(**RECIPE, epochs=2)
    train(shards, chosen, tmp_path / "whole", device="cpu", graph=False)
    stop = StopRequest()
    compute = Watched.launch

    def asks(self, samples):
        compute(self, samples)
        if Watched.taken[-1] == 6:
            stop.ask(15)

    Watched.launch, before = asks, Watched.launch
    try:
        with pytest.raises(RunStoppedError):
            train(shards, chosen, tmp_path / "parts", device="cpu", residence="device", stop=stop)
    finally:
        Watched.launch = before
    Watched.taken = ()
    train(shards, chosen, tmp_path / "parts", device="cpu", residence="device")
    assert Watched.taken == (7, 8, 9)
    same_run(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.usefixtures("on_device")
def test_a_loss_that_is_not_finite_is_noticed(tmp_path, monkeypatch):
    shards, real = FakeShardSet(tmp_path / "shards"), kt.transfer_loss

    def infinite(*given, **how):
        loss = real(*given, **how)
        return dataclasses.replace(loss, total=loss.total * float("inf"))

    monkeypatch.setattr(kt, "transfer_loss", infinite)
    with pytest.raises(NonFiniteError, match="step 0: the loss is not finite"):
        train(shards, tiny_recipe(batch_size=12), tmp_path / "run", device="cpu", residence="device")
    assert not read_metrics(tmp_path / "run")


def test_what_keeps_a_step_from_being_recorded(tmp_path):
    cuda, shards = torch.device("cuda"), FakeShardSet(tmp_path)

    def reason(method=None, *, device=cuda, residence="device", distributed=None, **recipe):
        settings = tiny_recipe(**recipe).train
        data = TrainingBatches(shards, settings, device=CPU, needs_static=True, residence=residence)
        return why_not_capturable(
            data, method or find_method(settings.method), settings, distributed or Distributed(), device
        )

    class Derived(find_method("kt")):
        pass

    class ByHost(Distributed):
        can_be_recorded = False

    assert reason() is None
    assert reason(method=find_method("event_only")) is None
    assert "need CUDA" in reason(device=CPU)
    assert reason(residence="host") is None
    assert "reads images, and they are kept elsewhere (host)" in reason(
        residence="host", method=find_method("simulate")
    )
    assert "in parts" in reason(accumulate=2)
    assert "not by NCCL" in reason(distributed=ByHost(0, 2))
    assert "no full batch" in reason(batch_size=25)
    assert "method kt" in reason(method=Derived)


@pytest.mark.parametrize(
    ("samples", "world", "taken"),
    [(24, 1, [True, True, True]), (24, 2, [True, True, True]), (23, 2, [True, True, False]), (22, 2, [True, True])],
)
def test_partial_batches_of_which_every_process_has_a_sample_are_taken(samples, world, taken):
    """Batches of 11; `test_distributed` has the figures of slices of different sizes."""
    of_process = SimpleNamespace(data=range(samples), distributed=Distributed(0, world))
    step = DeviceStep(of_process, None, None, batch_size=11, device=CPU)
    assert [step.takes(index) for index in range(-(-samples // 11))] == taken


class FakeCuda:
    """What a recording asks of torch.cuda; `capture` is called at the end of one."""

    def __init__(self, monkeypatch, capture=lambda: None):
        self.devices, self.pools, self.recorded, self.replays = [], 0, 0, 0
        self.current, self.pool_in_use, self.emptied = "usual", None, 0
        for name in (
            "Stream",
            "current_stream",
            "stream",
            "graph",
            "CUDAGraph",
            "MemPool",
            "use_mem_pool",
            "empty_cache",
        ):
            monkeypatch.setattr(torch.cuda, name, getattr(self, name))
        self.capture = capture

    def Stream(self, device):  # noqa: N802
        self.devices.append(device)
        return SimpleNamespace(wait_stream=lambda other: None)

    current_stream = Stream

    @contextlib.contextmanager
    def stream(self, chosen):
        before, self.current = self.current, chosen
        yield
        self.current = before

    @contextlib.contextmanager
    def graph(self, graph, *, pool, stream, capture_error_mode):
        assert (pool, capture_error_mode) == (self.pools, "thread_local")
        self.recorded, self.recorded_on = self.recorded + 1, stream
        yield
        self.capture()

    def MemPool(self):  # noqa: N802
        self.pools += 1
        return SimpleNamespace(id=self.pools)

    @contextlib.contextmanager
    def use_mem_pool(self, pool, device):
        self.devices.append(device)
        self.pool_in_use = pool.id
        yield
        self.pool_in_use = None

    def empty_cache(self):
        assert self.pool_in_use is None  # the allocator gives nothing back while one is in use
        self.emptied += 1

    def CUDAGraph(self):  # noqa: N802
        return self

    def replay(self):
        assert self.pool_in_use is None
        self.replays += 1


@pytest.fixture
def recording(monkeypatch):
    monkeypatch.setattr(epochs, "why_not_capturable", lambda *_: None)
    return lambda capture=lambda: None: FakeCuda(monkeypatch, capture)


def record(tmp_path, **recipe):
    shards, chosen = FakeShardSet(tmp_path / "shards"), tiny_recipe(**{"epochs": 1, **recipe})
    train(shards, chosen, tmp_path / "run", device="cpu", residence="device")


def test_streams_and_graphs_are_the_devices_own(tmp_path, recording):
    cuda = recording()
    record(tmp_path)
    assert set(cuda.devices) == {CPU}
    assert cuda.replays == 3


@pytest.mark.parametrize(("method", "phases"), [("kt", 1), ("pretrain", 2), ("distill", 2), ("simulate_pretrain", 2)])
def test_each_phase_of_a_method_is_recorded_once(tmp_path, recording, method, phases):
    """For each size of a batch, in memory that they share: batches of 10, 10 and 4."""
    cuda = recording()
    record(tmp_path, method=method, epochs=2, **({"teacher_steps": 1} if method == "distill" else {}))
    assert (cuda.pools, cuda.recorded, cuda.replays) == (phases, 2 * phases, 6)


def test_validation_takes_the_memory_of_the_recordings(tmp_path, recording, monkeypatch):
    """On their stream, to which the memory belongs; the last scores are taken when there are no recordings any more."""
    cuda, found, real = recording(), [], epochs.adapt_and_score

    def look(*given, **how):
        found.append((cuda.pool_in_use, cuda.current is cuda.recorded_on))
        return real(*given, **how)

    monkeypatch.setattr(epochs, "adapt_and_score", look)
    record(tmp_path, epochs=2)
    assert found[:2] == [(1, True), (1, True)]
    assert len(found) >= 4
    assert set(found[2:]) == {(None, False)}
    assert cuda.emptied == 2


class Created(TorchDispatchMode):
    """Keeps weak references to the storages that operations return."""

    def __init__(self):
        super().__init__()
        self.storages = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        found = func(*args, **(kwargs or {}))
        for part in torch.utils._pytree.tree_leaves(found):
            if isinstance(part, torch.Tensor):
                self.storages.append(weakref.ref(part.untyped_storage()))
        return found


@pytest.mark.parametrize("backend", ["torch", "auto"])
def test_no_tensor_of_a_scoring_outlives_it(tmp_path, backend):
    """A replay would write over it: what lives afterwards lived before."""
    shards, settings = FakeShardSet(tmp_path / "shards"), tiny_recipe().train
    network = make_network(network_arguments(settings, shards), seed=0)
    frames = split_frames(shards, "validation", residence="device", device=CPU)
    before = {tensor.untyped_storage()._cdata for tensor in (*network.state_dict().values(), frames._resident.rows)}
    with backends.use(backend), Created() as created:
        recalibrate(network, frames, batch_size=4, device=CPU)
        assert adapt_and_score(network, frames, prior=4.0, batch_size=4, device=CPU)
    assert len(created.storages) > 100
    alive = [storage() for storage in created.storages]
    assert {storage._cdata for storage in alive if storage is not None} <= before


def test_a_graph_without_work_is_no_training(tmp_path, recording):
    recording(lambda: warnings.warn("The CUDA Graph is empty. This usually means ...", UserWarning, stacklevel=1))
    with pytest.raises(DeviceError, match=r"could not be recorded.*Graph is empty.*--no-graph does without"):
        record(tmp_path)


def test_a_recording_that_fails_says_what_does_without(tmp_path, recording):
    def breaks():
        raise RuntimeError("operation not permitted when stream is capturing")

    recording(breaks)
    with pytest.raises(DeviceError, match="not permitted when stream is capturing; --no-graph does without"):
        record(tmp_path)


def test_a_recording_that_broke_off_for_want_of_memory_says_so(tmp_path, recording):
    def breaks():
        try:
            raise torch.OutOfMemoryError("CUDA out of memory")
        finally:
            raise RuntimeError("operation failed due to a previous error during capture")

    recording(breaks)
    with pytest.raises(DeviceMemoryError, match="out of memory with 10 samples"):
        record(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "cuDNN error: CUDNN_STATUS_ALLOC_FAILED",
        "CUBLAS_STATUS_ALLOC_FAILED when calling",
        "Triton Error [CUDA]: out of memory",
    ],
)
def test_errors_of_libraries_that_tell_of_too_little_memory(text):
    assert is_out_of_memory(RuntimeError(text))
    assert not is_out_of_memory(RuntimeError("CUDNN_STATUS_NOT_SUPPORTED"))


def test_the_clock_covers_what_the_device_does_behind_the_host(tmp_path, monkeypatch):
    """A device that works only when it is waited for: all of its time is the training's."""
    clock, queue = [0.0], []
    monkeypatch.setattr(epochs, "why_not_capturable", lambda *_: None)
    monkeypatch.setattr(epochs.time, "perf_counter", lambda: clock[0])

    class Behind(DeviceStep):
        def launch(self, samples):
            queue.append((self, samples))

    monkeypatch.setattr(epochs, "CudaGraphStep", Behind)
    rows = Distributed.gather_rows

    def wait(self, vector):
        while queue:
            step, samples = queue.pop()
            step.compute(samples)
            clock[0] += 8.0
        return rows(self, vector)

    monkeypatch.setattr(Distributed, "gather_rows", wait)
    shards = FakeShardSet(tmp_path / "shards", train=20)
    result = train(shards, tiny_recipe(epochs=2), tmp_path / "run", device="cpu", residence="device")
    for line in read_metrics(tmp_path / "run"):
        assert (line["seconds"], line["samples_per_second"]) == (16.0, 20 / 16.0)
    assert result["training_seconds"] == 32.0
