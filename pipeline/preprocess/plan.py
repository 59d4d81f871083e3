"""What a conversion will do, worked out before anything is decoded; the same whoever runs it.

Static images go first, in chunks; what they hash to decides the static pool. Then the event shards, whose samples are
shuffled across classes once, by hash. A recording whose static image turns out to be undecodable is left out of its
shard, and no other shard changes: so both kinds of tasks can be planned, and shared out, from the listing alone.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from spikebridge.pipeline.base.errors import LayoutError
from spikebridge.pipeline.datasets.pairs import Listing, Recording, StaticImage, make_key_part
from spikebridge.pipeline.datasets.splits import rank
from spikebridge.pipeline.shards.manifest import SPLITS
from spikebridge.pipeline.shards.settings import ConversionSettings

IMAGES_PER_CHUNK = 4096
ITEMS_PER_SURVEY = 32


@dataclass(frozen=True)
class StaticChunk:
    """Images that one task decodes."""

    name: str
    """`static-<number>`."""
    images: tuple[StaticImage, ...]
    """In the order of the listing."""

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the images."""
        return tuple(image.name for image in self.images)

    def part(self, start: int, stop: int) -> StaticChunk:
        """Return the chunk with some of its images."""
        return replace(self, images=self.images[start:stop])


@dataclass(frozen=True, slots=True)
class PlannedSample:
    """A recording, the key it will have, and the key of its static image (None without one)."""

    key: str
    recording: Recording
    static_key: str | None
    group: str = ""
    """As the index has it."""
    parts: Mapping[str, tuple[int, int]] = field(default_factory=dict, compare=False)
    """Where it is a part of its file: the intervals of all recordings of that file, by name."""


@dataclass(frozen=True)
class EventShard:
    """Samples that one task converts."""

    name: str
    """`events-<split>-<number>`, the file's name without its ending."""
    samples: tuple[PlannedSample, ...]
    """In the order in which they are stored."""

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the recordings."""
        return tuple(sample.recording.name for sample in self.samples)

    def part(self, start: int, stop: int) -> EventShard:
        """Return the shard with some of its samples."""
        return replace(self, samples=self.samples[start:stop])

    def without(self, names: Collection[str]) -> EventShard:
        """Return the shard without some recordings; what else it holds stays."""
        return replace(self, samples=tuple(s for s in self.samples if s.recording.name not in names))


@dataclass(frozen=True)
class Survey:
    """Samples or images of which one task finds a fact that decides how the set is made."""

    name: str
    """`survey-<fact>-<number>`."""
    fact: str
    """A key of `pipeline.preprocess.tasks.FACTS`."""
    items: tuple[PlannedSample | StaticImage, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the recordings or images."""
        return tuple(_named(item).name for item in self.items)

    def part(self, start: int, stop: int) -> Survey:
        """Return the survey of some of the items."""
        return replace(self, items=self.items[start:stop])


def _named(item: PlannedSample | StaticImage) -> Recording | StaticImage:
    return item.recording if isinstance(item, PlannedSample) else item


Task = StaticChunk | EventShard | Survey


def plan_survey(fact: str, items: Sequence[PlannedSample | StaticImage]) -> list[Survey]:
    """Cut items into tasks that find a fact."""
    starts = range(0, len(items), ITEMS_PER_SURVEY)
    return [
        Survey(f"survey-{fact}-{i:05d}", fact, tuple(items[s : s + ITEMS_PER_SURVEY])) for i, s in enumerate(starts)
    ]


def plan_static(listing: Listing) -> list[StaticChunk]:
    """Cut the images of a listing into chunks."""
    images = listing.images
    starts = range(0, len(images), IMAGES_PER_CHUNK)
    return [StaticChunk(f"static-{i:05d}", images[s : s + IMAGES_PER_CHUNK]) for i, s in enumerate(starts)]


def static_keys(images: Sequence[StaticImage]) -> dict[str, str]:
    """Return the key of every image, by name: `static-<class index>-<stem>`.

    Raises:
        LayoutError: two names that give one key.
    """
    keys = {image.name: f"static-{image.label}-{make_key_part(image.stem)}" for image in images}
    _check_unique(keys)
    return keys


def sample_keys(recordings: Sequence[Recording], split: Mapping[str, str]) -> dict[str, str]:
    """Make keys of recordings, by name: `<split>-<class index>-<stem>`, or with the whole name where stems collide.

    Raises:
        LayoutError: two names that give one key.
    """
    short = {r.name: f"{split[r.name]}-{r.label}-{make_key_part(r.stem)}" for r in recordings}
    uses = Counter(key.casefold() for key in short.values())
    keys = {
        r.name: short[r.name]
        if uses[short[r.name].casefold()] == 1
        else f"{split[r.name]}-{r.label}-{make_key_part(r.name)}"
        for r in recordings
    }
    _check_unique(keys)
    return keys


def group_keys(recordings: Iterable[Recording]) -> dict[str, str]:
    """Return how the index calls every group: letters, digits, `_` and `-`.

    Raises:
        LayoutError: two groups that give one key.
    """
    keys = {group: make_key_part(group) for group in {r.group for r in recordings}}
    owner: dict[str, str] = {}
    for group, key in sorted(keys.items()):
        if (other := owner.setdefault(key, group)) != group:
            raise LayoutError(f"groups {other} and {group} both give the key {key}. Rename one of them.")
    return keys


def plan_events(
    recordings: Sequence[Recording],
    *,
    split: Mapping[str, str],
    image_keys: Mapping[str, str],
    settings: ConversionSettings,
) -> list[EventShard]:
    """Cut every split into shards, in the seeded order of writing."""
    keys, groups = sample_keys(recordings, split), group_keys(recordings)
    parts: dict[str, dict[str, tuple[int, int]]] = defaultdict(dict)
    whole: dict[str, tuple[int, int]] = {}  # one for all samples
    for recording in recordings:
        if recording.interval:
            parts[recording.file][recording.name] = recording.interval
    shards = []
    for name in SPLITS:
        members = sorted(
            (r for r in recordings if split[r.name] == name), key=lambda r: rank(settings.seed, "order", keys[r.name])
        )
        samples = tuple(
            PlannedSample(keys[r.name], r, image_keys.get(r.image or ""), groups[r.group], parts.get(r.file, whole))
            for r in members
        )
        for number, (start, stop) in enumerate(settings.cut_into_shards(len(samples))):
            shards.append(EventShard(f"events-{name}-{number:05d}", samples[start:stop]))
    return shards


def _check_unique(keys: Mapping[str, str]) -> None:
    owner: dict[str, str] = {}
    for name, key in keys.items():
        other = owner.setdefault(key.casefold(), name)
        if other != name:
            raise LayoutError(
                f"{other} and {name} both give the key {key}; keys hold only letters, digits, _ and - and must differ "
                "in more than case. Rename one of them."
            )
