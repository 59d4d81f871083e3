"""Shards to batches [T,B,C,H,W]: the only place that makes them.

Axes: T time, B batch, P polarity (the network's input channels), C channels of a static image, H height, W width,
n samples. Stored frames are [n,T,P,H,W]; a batch is a [T,B,P,H,W] view of sample-major memory.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from spikebridge.pipeline.base.errors import few
from spikebridge.train.config.settings import TrainSettings
from spikebridge.train.data import draws as device_order
from spikebridge.train.data import order
from spikebridge.train.data.frames import Frames, Stored, as_tensor, time_first
from spikebridge.train.data.mixing import Steps
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
    """Root seed of the run; with `epoch` and `draws` it gives a method numbers of its own (`order.uniform`)."""
    epoch: int
    """0-based; -1 in a step that is recorded once and replayed, which knows it on the device only."""
    draws: order.Ints
    """int64 [B], draw positions within the epoch; empty in such a step."""
    mixture: Mixture | None = None
    """Second classes of the recordings, where the augmentation mixes them."""
    replacement_probability: Tensor | None = None
    """0-d float64, in such a step; it then takes the place of the number that `static_stream` is given."""


def static_stream(batch: Batch, probability: float) -> Tensor:
    """Static sequences [T,B,P,H,W] float32; whole samples give way to their own event sequence.

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
    if batch.replacement_probability is not None:
        limit = batch.replacement_probability
    elif probability <= 0:
        return still
    elif probability >= 1:
        return batch.events
    replaced = (batch.replacement <= limit) & (limit > 0)  # [B]
    return torch.where(replaced[None, :, None, None, None], batch.events, still)


class TrainingBatches:
    """Training draws of a shard set as batches; a pure function of (shard set, settings, epoch, batch).

    Args:
        shards: an open shard set.
        settings: the `[train]` table.
        device: where batches go.
        needs_static: read the static pool and give every draw an image of its class.
        draw_from_pool: give it any image of the pool instead.
        residence: where the event frames are kept, see `Frames`. With `device` the static pool is kept there too, and
            everything about a batch is computed there; the batches are the same.

    Raises:
        MethodError: no training recordings, classes without static images, or images whose channels do not fit.
        ShardMismatchError: images and frames of different size.
    """

    def __init__(
        self,
        shards: Any,
        settings: TrainSettings,
        *,
        device: torch.device,
        needs_static: bool,
        draw_from_pool: bool = False,
        residence: str = "auto",
    ) -> None:
        split = shards.split("train")
        labels = np.asarray(split.labels, dtype=np.int64)
        positions = order.select_recordings(
            split.keys, labels, settings.events_per_class, seed=settings.seed, share=settings.events_share
        )
        if not len(positions):
            raise MethodError(f"{shards.path}: the training split is empty; preprocess more recordings")
        pool = shards.static_pool() if needs_static else None
        pool_bytes = 0 if pool is None else int(np.prod(pool.images.shape))  # uint8
        self.frames = Frames(
            split,
            positions,
            sample_shape=shards.sample_shape,
            residence=residence,
            device=device,
            pool_bytes=pool_bytes,
        )
        self.labels = self.frames.labels
        self.steps_per_epoch = order.batch_count(len(positions), settings.batch_size)
        self.manifest: Any = shards.manifest
        self.sample_shape: tuple[int, ...] = tuple(shards.sample_shape)
        self._settings = settings
        self._augmentation = Steps.of(settings.augmentation)
        self._device = device
        self._polarities = shards.sample_shape[1]
        self._shards = np.asarray(split.shard_of)[positions] if settings.sampling == "windowed" else None
        self._pool: Any = None
        self._pool_draws = draw_from_pool
        self._class_offsets = np.zeros(len(shards.classes) + 1, dtype=np.int64)
        self._partner_class = np.arange(len(shards.classes), dtype=np.int64)
        self._order: tuple[int, order.Ints] | None = None
        if pool is not None:
            self._open_pool(shards, pool)
        self._held = self._hold() if self.frames.residence == "device" else None

    @property
    def on_device(self) -> bool:
        """Whether batches are made on the device alone."""
        return self._held is not None

    @property
    def pool_images(self) -> int:
        """Static images to draw from; 0 when the method needs none."""
        return 0 if self._pool is None else len(self._pool)

    def __len__(self) -> int:
        return len(self.labels)

    def _open_pool(self, shards: Any, pool: Any) -> None:
        self._class_offsets = np.asarray(pool.class_offsets, dtype=np.int64)
        present = np.unique(self.labels)
        if self._settings.partners == "shuffled":
            if len(present) < 2:
                raise MethodError(f'{shards.path}: partners = "shuffled" needs two classes, found {len(present)}')
            self._partner_class[present] = order.shuffled_classes(present, seed=self._settings.seed)
        if self._pool_draws and not self._class_offsets[-1]:
            raise MethodError(f"{shards.path}: the static pool is empty; method {self._settings.method} trains on it")
        empty = [shards.classes[c] for c in present if not self._pool_draws and np.diff(self._class_offsets)[c] < 1]
        if empty:
            raise MethodError(
                f"{shards.path}: no static images for the classes {few(empty)}; method {self._settings.method} "
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
        if self.frames.residence == "device":
            rows = np.arange(len(pool.images), dtype=np.int64)
            self._pool = Stored.gather(lambda some: pool.images[some[0] : some[-1] + 1], rows, self._device).rows
        else:
            resident = isinstance(pool.images, np.ndarray)
            self._pool = as_tensor(np.ascontiguousarray(pool.images)) if resident else pool.images

    def _positions(self, epoch: int) -> order.Ints:
        """The epoch's sequence of samples, kept for the next batch of the same epoch."""
        if self._order is None or self._order[0] != epoch:
            sequence = order.epoch_order(
                self.labels,
                seed=self._settings.seed,
                epoch=epoch,
                mode=self._settings.sampling,
                shards=self._shards,
                window=self._settings.sampling_window,
            )
            self._order = (epoch, sequence)
        return self._order[1]

    @property
    def image_labels(self) -> order.Ints:
        """Class of every image of the static pool, int64 [pool_images]."""
        return np.repeat(np.arange(len(self._class_offsets) - 1, dtype=np.int64), np.diff(self._class_offsets))

    def images(self, rows: order.Ints) -> Tensor:
        """Images of the static pool by row: float32 [len(rows),P,H,W] in [0, 1], on the device."""
        if isinstance(self._pool, Tensor):
            return self.shown(self._pool[torch.from_numpy(rows).to(self._pool.device)])
        return self.shown(as_tensor(self._pool[rows]))

    def shown(self, stored: Tensor) -> Tensor:
        """Stored images uint8 [B,C,H,W] as the network sees them: float32 [B,P,H,W] in [0, 1], on the device."""
        images = stored.to(self._device).float() / 255  # [B,C,H,W]
        return images.expand(-1, self._polarities, -1, -1)  # [B,P,H,W]: one channel serves both polarities

    def _partners(self, labels: order.Ints, epoch: int, draws: order.Ints) -> order.Ints:
        """Rows of the static pool, one for each draw."""
        seed = self._settings.seed
        if self._pool_draws:
            return order.pool_images(self.pool_images, seed=seed, epoch=epoch, draws=draws)
        shown = self._partner_class[labels]
        return order.static_partners(shown, self._class_offsets, seed=seed, epoch=epoch, draws=draws)

    def sizes(self, index: int, *, world: int = 1) -> list[int]:
        """Samples of batch `index` by rank."""
        size, samples = self._settings.batch_size, len(self)
        return [len(order.batch_draws(samples, size, index, rank=rank, world=world)) for rank in range(world)]

    def batch(self, epoch: int, index: int, *, rank: int = 0, world: int = 1) -> Batch:
        """Batch `index` of an epoch (both 0-based), or one rank's share of it, which holds a sample at least."""
        seed = self._settings.seed
        draws = order.batch_draws(len(self), self._settings.batch_size, index, rank=rank, world=world)
        if self._held is not None:
            self.begin_on_device(epoch)
            there = torch.from_numpy(draws).to(self._device)
            made = self.device_batch(torch.tensor(epoch, device=self._device), there)
            return dataclasses.replace(made, epoch=epoch, draws=draws)
        sequence = self._positions(epoch)
        labels = self.labels[sequence[draws]]
        mates = draws
        if self._augmentation.mixing is not None:
            mates = order.mixing_partners(len(self), self._settings.batch_size, seed=seed, epoch=epoch, draws=draws)
        frames, shares = self._augmentation.apply(
            lambda those: self.frames.take(sequence[those]).to(self._device),
            seed=seed,
            epoch=epoch,
            draws=draws,
            partners=mates,
        )
        mixture = None
        if shares is not None:
            mixture = Mixture(torch.from_numpy(self.labels[sequence[mates]]).to(self._device), shares)
        images = image_labels = None
        if self._pool is not None:
            partners = self._partners(labels, epoch, draws)
            images = self.images(partners)  # [B,P,H,W]
            shown = np.searchsorted(self._class_offsets, partners, side="right") - 1
            image_labels = torch.from_numpy(shown.astype(np.int64)).to(self._device)
        return Batch(
            events=time_first(frames),
            images=images,
            image_labels=image_labels,
            labels=torch.from_numpy(labels).to(self._device),
            replacement=torch.from_numpy(order.replacement_uniforms(seed, epoch, draws)).to(self._device),
            dropout_seeds=torch.from_numpy(order.random_words(seed, "dropout", epoch, draws).view(np.int64)).to(
                self._device
            ),
            seed=seed,
            epoch=epoch,
            draws=draws,
            mixture=mixture,
        )

    def _hold(self) -> _Held:
        """What batches are made from on the device."""

        def there(values: order.Ints) -> Tensor:
            return torch.from_numpy(np.array(values, dtype=np.int64)).to(self._device)

        shards = None if self._shards is None else there(self._shards)
        labels = there(self.labels)
        return _Held(labels, shards, there(self._class_offsets), there(self._partner_class), torch.empty_like(labels))

    def begin_on_device(self, epoch: int) -> None:
        """Compute an epoch's sequence of samples on the device, unless it is there; its memory stays the same."""
        held, settings = self._held, self._settings
        assert held is not None
        if held.epoch != epoch:
            sequence = device_order.epoch_order(
                held.labels,
                seed=settings.seed,
                epoch=torch.tensor(epoch, device=self._device),
                mode=settings.sampling,
                shards=held.shards,
                window=settings.sampling_window,
            )
            held.sequence.copy_(sequence)
            held.epoch = epoch

    def device_batch(self, epoch: Tensor, draws: Tensor, *, replacement_probability: Tensor | None = None) -> Batch:
        """The batch of `draws`, without a look at the host; residence `device`, after `begin_on_device`.

        Args:
            epoch: 0-d int64, the one that was begun.
            draws: int64 [B] positions within it.
            replacement_probability: see `Batch`.
        """
        held, seed = self._held, self._settings.seed
        assert held is not None
        labels = held.labels[held.sequence[draws]]
        mates = draws
        if self._augmentation.mixing is not None:
            mates = device_order.mixing_partners(
                len(self), self._settings.batch_size, seed=seed, epoch=epoch, draws=draws
            )
        frames, shares = self._augmentation.apply(
            lambda those: self.frames.take_resident(held.sequence[those]),
            seed=seed,
            epoch=epoch,
            draws=draws,
            partners=mates,
        )
        images = image_labels = None
        if self._pool is not None:
            if self._pool_draws:
                rows = device_order.pool_images(self.pool_images, seed=seed, epoch=epoch, draws=draws)
            else:
                classes = held.partner_class[labels]
                rows = device_order.static_partners(classes, held.class_offsets, seed=seed, epoch=epoch, draws=draws)
            images = self.shown(self._pool[rows])  # [B,P,H,W]
            image_labels = torch.searchsorted(held.class_offsets, rows, right=True) - 1
        return Batch(
            events=time_first(frames),
            images=images,
            image_labels=image_labels,
            labels=labels,
            replacement=device_order.uniform(seed, "replacement", epoch, draws),
            dropout_seeds=device_order.random_words(seed, "dropout", epoch, draws),
            seed=seed,
            epoch=-1,
            draws=np.empty(0, dtype=np.int64),
            mixture=None if shares is None else Mixture(held.labels[held.sequence[mates]], shares),
            replacement_probability=replacement_probability,
        )


@dataclass
class _Held:
    """On the device, int64."""

    labels: Tensor
    """[n] of the recordings in use."""
    shards: Tensor | None
    """[n], sampling `windowed` only."""
    class_offsets: Tensor
    """[K+1] of the static pool."""
    partner_class: Tensor
    """[K]."""
    sequence: Tensor
    """[n], the samples of the epoch's draws."""
    epoch: int = -1
    """Whose sequence it is."""
