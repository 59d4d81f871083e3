"""A conversion with small settings, and the bytes of the set that it writes."""

from spikebridge.pipeline.preprocess.prepare import prepare
from spikebridge.pipeline.preprocess.run import convert
from spikebridge.pipeline.shards.manifest import OUTSIDE
from spikebridge.pipeline.shards.settings import ConversionSettings

SMALL = ConversionSettings(dataset="digits", time_bins=4, size=12, samples_per_shard=4)


def contents(folder):
    """Bytes of every file that is part of the set."""
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if p.name not in OUTSIDE}


def run(raw, out, settings=SMALL, **options):
    return convert(prepare(settings, events_root=raw, static_root=raw), out, **options)
