"""Shards to batches [T,B,C,H,W]: the only place that makes them.

Axes: T time, B batch, P polarity (the network's input channels), C channels of a static image, H height, W width,
n samples. Stored frames are [n,T,P,H,W]; a batch is a [T,B,P,H,W] view of sample-major memory.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spikebridge.pipeline.base.errors import shorten
from spikebridge.pipeline.events.packing import CheckedEvents
from spikebridge.pipeline.shards.reader import ShardSet
from spikebridge.pipeline.shards.static_pool import StaticImages
from spikebridge.train.config.settings import TrainSettings
from spikebridge.train.data import draws as random
from spikebridge.train.data import order
from spikebridge.train.data.event_augmentation import augment_events, words_of
from spikebridge.train.data.frames import Frames, StoredRows, UnlabelledFrames, as_tensor, time_first, to_device
from spikebridge.train.data.mixing import AugmentationPlan
from spikebridge.train.errors import MethodError, ShardMismatchError
from spikebridge.train.losses import Mixture


@dataclass(frozen=True)
class Batch:
    """One batch of training draws, on the device of the network."""

    events: Tensor
    """float32 [T,B,P,H,W], augmented event frames in the stored unit (counts, or bilinear weights)."""
    images: Tensor | None
    """float32 [B,P,H,W] in [0, 1], a static image of the same class each (of another, see setting `partners`, or of
    any, see `Method.draw_from_pool`); None when the method needs none."""
    image_labels: Tensor | None
    """int64 [B], the class that each static image shows; None when the method needs none."""
    labels: Tensor
    """int64 [B], of the recordings."""
    replacement: Tensor
    """float64 [B] in [0, 1): the number that decides about sliding replacement."""
    dropout_seeds: Tensor
    """int64 [B], one for the dropout masks of each draw."""
    seed: int
    """Root seed of the run; with `epoch` and `draws` it gives a method numbers of its own (`draws.uniform`)."""
    epoch: Tensor
    """0-d int64, 0-based, where the draws are."""
    draws: Tensor
    """int64 [B], draw positions within the epoch; on the device where everything is kept there, else on the CPU."""
    mixture: Mixture | None = None
    """Second classes of the recordings, where the augmentation mixes them."""
    image_rows: Tensor | None = None
    """int64 [B], of the static images in the pool; None when the method needs none."""
    number: Tensor | None = None
    """0-d float64, `Method.number` of the step, in one that is recorded once and replayed; replaces the number that
    `static_stream` is given."""

    def tensors(self) -> list[Tensor]:
        """Return all tensors but `number`."""
        found = [getattr(self, each.name) for each in fields(self) if each.name != "number"]
        found += [] if self.mixture is None else [self.mixture.labels, self.mixture.shares]
        return [each for each in found if isinstance(each, Tensor)]

    def copied(self, device: torch.device) -> Batch:
        """Copy all tensors to memory of their own on a device."""

        def copy(x: Tensor) -> Tensor:
            return x.to(device, copy=True, memory_format=torch.contiguous_format)

        found = {each.name: getattr(self, each.name) for each in fields(self)}
        found = {name: copy(value) if isinstance(value, Tensor) else value for name, value in found.items()}
        if self.mixture is not None:
            found["mixture"] = Mixture(copy(self.mixture.labels), copy(self.mixture.shares))
        return Batch(**found)


def static_stream(batch: Batch, probability: float) -> Tensor:
    """Return static sequences [T,B,P,H,W] float32 in which whole samples give way to their own event sequence.

    Args:
        batch: with images.
        probability: replacement probability; at 0 the images repeated over time are a view without copies, and where
            every sample is replaced the events themselves are returned. Images [T,B,P,H,W] that differ from step to
            step are taken as they are.

    Raises:
        MethodError: the batch has no images.

    Source: He et al., AAAI 2024, sliding training (replaced when u <= P).
    """
    if batch.images is None:
        raise MethodError("this batch has no static images; the method must set needs_static")
    still = batch.images.expand(len(batch.events), -1, -1, -1, -1)  # [T,B,P,H,W], a view
    limit: float | Tensor = probability
    if batch.number is not None:
        limit = batch.number
    elif probability <= 0:
        return still
    elif probability >= 1:
        return batch.events
    replaced = (batch.replacement <= limit) & (limit > 0)  # [B]
    return torch.where(replaced[None, :, None, None, None], batch.events, still)


def _augment_events(names: str, word: int, events: CheckedEvents, sensor: tuple[int, int]) -> CheckedEvents | None:
    return augment_events(names, events, sensor=sensor, word=word)


class TrainingBatches:
    """Makes batches of the training recordings; a pure function of (shard set, settings, epoch, draw positions).

    Args:
        shards: an open shard set.
        settings: the `[train]` table.
        device: where batches go.
        needs_static: read the static pool and give every draw an image of its class.
        draw_from_pool: give every draw any image of the pool instead.
        unlabelled: recordings without their labels, see `unlabelled_frames`: `others`, those of the training split that
            are not labelled, `all` of it, or none.
        residence: where the event frames are kept, see `Frames`. With `device` the static pool is kept there too, and
            everything about a batch is computed there; the batches are the same.

    Raises:
        MethodError: no training recordings, classes without static images, or images whose channels do not fit.
        ShardMismatchError: images and frames of different size.
    """

    def __init__(
        self,
        shards: ShardSet,
        settings: TrainSettings,
        *,
        device: torch.device,
        needs_static: bool,
        draw_from_pool: bool = False,
        unlabelled: str = "",
        residence: str = "auto",
    ) -> None:
        split = shards.split("train")
        positions = order.training_recordings(split, settings)
        if not len(positions):
            raise MethodError(f"{shards.path}: the training split is empty; preprocess more recordings")
        pool = shards.static_pool() if needs_static else None
        others = self._unlabelled_positions(len(split.labels), positions, unlabelled)
        pool_bytes = 0 if pool is None else int(np.prod(pool.images.shape))  # uint8
        asked = residence
        if settings.event_augmentation != "none":
            residence = self._stays_on_disk(shards, residence)
        self.frames = Frames(
            split,
            positions,
            sample_shape=shards.sample_shape,
            residence=residence,
            device=device,
            pool_bytes=pool_bytes + 2 * len(others) * int(np.prod(shards.sample_shape)),
        )
        self.steps_per_epoch = order.batch_count(len(positions), settings.batch_size)
        self.manifest = {**shards.manifest, "settings": shards.settings}  # of these frames
        self.sample_shape = tuple(shards.sample_shape)
        self.on_device = self.frames.residence == "device"
        """Whether batches are made on the device alone."""
        self._unlabelled: UnlabelledFrames | None = None
        if len(others):
            self._unlabelled = UnlabelledFrames(
                split,
                others,
                sample_shape=shards.sample_shape,
                residence="device" if self.on_device else "disk" if asked == "disk" else "auto",
                device=device if self.on_device else None,
            )
        self._settings = settings
        self._augmentation = AugmentationPlan.parse(settings.augmentation)
        self._device = device
        self._draw_from_pool = draw_from_pool
        # What a draw is looked up in; all int64. Elsewhere than the frames, a look-up would make the host wait.
        self._lookup_device = device if self.on_device else torch.device("cpu")
        self._labels = self._lookup(self.frames.labels)  # [n]
        self._shards = self._lookup(split.shard_of[positions]) if settings.sampling == "windowed" else None  # [n]
        self._sequence, self._epoch = torch.empty_like(self._labels), -1  # samples [n] of an epoch's draws
        self._numbers = random.EpochNumbers(settings.seed, len(positions), device) if self.on_device else None
        self._class_offsets = self._lookup(np.zeros(len(shards.classes) + 1))  # [K+1], of the static pool
        self._partner_class = self._lookup(np.arange(len(shards.classes)))  # [K]
        self._pool: Any = None
        """Static images uint8 [n,C,H,W]: a tensor, or an HDF5 data set that is read batch by batch."""
        if pool is not None:
            self._open_pool(shards, pool)

    @staticmethod
    def _unlabelled_positions(recordings: int, labelled: order.Ints, which: str) -> order.Ints:
        """Return the positions of unlabelled recordings within the training split, ascending int64."""
        everything = np.arange(recordings, dtype=np.int64)
        return {"": everything[:0], "all": everything, "others": np.setdiff1d(everything, labelled)}[which]

    def _stays_on_disk(self, shards: ShardSet, residence: str) -> str:
        """Return the residence of events that every draw frames anew."""
        name = "event_augmentation"
        if "events" not in shards.arrays:
            raise ShardMismatchError(
                f"{shards.path}: stores frames, and {name} needs the events. Preprocess with --store events, or use "
                "`augmentation`."
            )
        if residence not in ("auto", "disk"):
            raise MethodError(
                f"{name}: frames are made anew for every draw; expected residence disk, found {residence}"
            )
        return "disk"

    def _frames_of(self, epoch: Tensor, draws: Tensor) -> Tensor:
        """Return the frames [B,T,P,H,W] of draws as stored, of augmented events where the settings say so."""
        names = self._settings.event_augmentation
        if names == "none":
            return self.frames.take(self._sequence[draws])
        words = words_of(self._settings.seed, epoch, draws)
        changes = [partial(_augment_events, names, word) for word in words]
        return self.frames.take(self._sequence[draws], changes)

    def _lookup(self, values: np.ndarray) -> Tensor:
        return torch.from_numpy(np.array(values, dtype=np.int64)).to(self._lookup_device)

    @property
    def pool_images(self) -> int:
        """Number of static images to draw from; 0 when the method needs none."""
        return 0 if self._pool is None else len(self._pool)

    def __len__(self) -> int:
        return len(self._labels)

    def _open_pool(self, shards: ShardSet, pool: StaticImages) -> None:
        present, settings = np.unique(self.frames.labels), self._settings
        if settings.partners == "shuffled":
            if len(present) < 2:
                raise MethodError(f'{shards.path}: partners = "shuffled" needs two classes, found {len(present)}')
            classes = self._lookup(present)
            self._partner_class[classes] = random.shuffle_classes(classes, seed=settings.seed)
        self._class_offsets = self._lookup(pool.class_offsets)
        counts = np.diff(pool.class_offsets)
        if self._draw_from_pool and not counts.sum():
            raise MethodError(f"{shards.path}: the static pool is empty; method {settings.method} trains on it")
        empty = [shards.classes[c] for c in present if not self._draw_from_pool and counts[c] < 1]
        if empty:
            raise MethodError(
                f"{shards.path}: no static images for the classes {shorten(empty)}; method {settings.method} "
                "needs at least one each: add images, preprocess without these classes, or train with event_only"
            )
        _, P, H, W = shards.sample_shape
        C = pool.images.shape[1]
        if pool.images.shape[2:] != (H, W):
            raise ShardMismatchError(f"{shards.path}: static images {pool.images.shape[2:]}, event frames {(H, W)}")
        if C not in (1, P):
            raise MethodError(
                f"{shards.path}: static images have {C} channels (encoding {shards.settings.get('encoding')}), the "
                f"network takes {P} as event frames have {P} polarities: preprocess with --encoding v or luma"
            )
        if self.on_device:
            rows = np.arange(len(pool.images), dtype=np.int64)
            self._pool = StoredRows.read(lambda part: pool.images[part[0] : part[-1] + 1], rows, self._device).rows
        else:
            in_memory = isinstance(pool.images, np.ndarray)
            self._pool = as_tensor(np.ascontiguousarray(pool.images)) if in_memory else pool.images

    def image_classes(self, rows: Tensor) -> Tensor:
        """Return the classes of images of the static pool: int64, shape of `rows`."""
        return torch.searchsorted(self._class_offsets, rows.to(self._lookup_device), right=True) - 1

    def images(self, rows: Tensor) -> Tensor:
        """Return images of the static pool: float32 [B,P,H,W] in [0, 1], on the device.

        Args:
            rows: int64 [B]; the host waits for them unless they lie where the pool does.
        """
        if isinstance(self._pool, Tensor):
            stored = self._pool[rows.to(self._pool.device)]
        else:
            stored = as_tensor(self._pool[rows.cpu().numpy()])
        images = to_device(stored, self._device).float() / 255  # [B,C,H,W]
        return images.expand(-1, self.sample_shape[1], -1, -1)  # [B,P,H,W]: one channel serves both polarities

    @property
    def unlabelled_recordings(self) -> int:
        """Number of unlabelled recordings to draw from; 0 when the method needs none."""
        return 0 if self._unlabelled is None else len(self._unlabelled)

    def unlabelled_frames(self, rows: Tensor) -> Tensor:
        """Return frames of unlabelled recordings, of which there are some, as stored: [B,T,P,H,W], on the device.

        Args:
            rows: int64 [B]; the host waits for them unless they lie where the frames do.
        """
        assert self._unlabelled is not None
        return to_device(self._unlabelled.take(rows), self._device)

    def sizes(self, index: int, *, world: int = 1) -> list[int]:
        """Return the samples of batch `index` by rank."""
        size, samples = self._settings.batch_size, len(self)
        return [len(order.batch_draws(samples, size, index, rank=rank, world=world)) for rank in range(world)]

    def batch(self, epoch: int, index: int, *, rank: int = 0, world: int = 1) -> Batch:
        """Return batch `index` of an epoch (both 0-based), or one rank's share of it, which holds a sample at least."""
        self.begin_epoch(epoch)
        draws = self._lookup(order.batch_draws(len(self), self._settings.batch_size, index, rank=rank, world=world))
        return self.batch_of(torch.tensor(epoch, device=self._lookup_device), draws)

    def begin_epoch(self, epoch: int) -> None:
        """Compute an epoch's sequence of samples, unless it is there; its memory stays the same."""
        if self._epoch != epoch:
            sequence = random.epoch_order(
                self._labels,
                seed=self._settings.seed,
                epoch=epoch,
                mode=self._settings.sampling,
                shards=self._shards,
                window=self._settings.sampling_window,
            )
            self._sequence.copy_(sequence)
            if self._numbers is not None:
                self._numbers.begin(epoch)
            self._epoch = epoch

    def batch_of(self, epoch: Tensor, draws: Tensor, *, number: Tensor | None = None) -> Batch:
        """Return the batch of draws after `begin_epoch`; where all is kept on the device, the host waits for nothing.

        Args:
            epoch: 0-d int64, the one that was begun.
            draws: int64 [B] positions within it, where the epoch is.
            number: see `Batch`.
        """
        seed, device = self._settings.seed, self._device
        numbers: random.Epoch = epoch if self._numbers is None else self._numbers
        labels = self._labels[self._sequence[draws]]
        partners = draws
        if self._augmentation.mixing is not None:
            batch_size = self._settings.batch_size
            partners = random.mixing_partners(len(self), batch_size, seed=seed, epoch=numbers, draws=draws)
        frames, shares = self._augmentation.apply(
            lambda positions: to_device(self._frames_of(epoch, positions), device),
            seed=seed,
            epoch=numbers,
            draws=draws,
            partners=partners,
        )
        mixture = None
        if shares is not None:
            mixture = Mixture(self._labels[self._sequence[partners]].to(device), shares)
        images = image_labels = image_rows = None
        if self._pool is not None:
            if self._draw_from_pool:
                rows = random.pool_rows(self.pool_images, seed=seed, epoch=numbers, draws=draws)
            else:
                classes = self._partner_class[labels]
                rows = random.static_partners(classes, self._class_offsets, seed=seed, epoch=numbers, draws=draws)
            images = self.images(rows)  # [B,P,H,W]
            image_labels, image_rows = self.image_classes(rows).to(device), rows.to(device)
        return Batch(
            events=time_first(frames),
            images=images,
            image_labels=image_labels,
            image_rows=image_rows,
            labels=labels.to(device),
            replacement=random.uniform(seed, "replacement", numbers, draws).to(device),
            dropout_seeds=random.random_words(seed, "dropout", numbers, draws).to(device),
            seed=seed,
            epoch=epoch,
            draws=draws,
            mixture=mixture,
            number=number,
        )
