"""croissant.json: a shard set as catalogues and dataset search engines read it, rendered from its manifest.

Croissant 1.1 with the RAI extension. The set's ID does not cover the file: it says nothing that the manifest and the
facts of the data set do not say, and another version may word it otherwise.

Source: MLCommons, Croissant Format Specification 1.1; Croissant RAI Specification 1.0.
Differs: no datePublished and no creator, which a set does not know; mlcroissant warns of the first and reads the file.
No references from samples to splits and classes: mlcroissant 1.1.1 fails on them, see `findings/`.
"""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import Any

from spikebridge.pipeline.base.display import show
from spikebridge.pipeline.cards.card import PAIRING_TEXT, PROTOCOL_TEXT, split_by_shards
from spikebridge.pipeline.datasets.pairs import DatasetCard
from spikebridge.pipeline.shards.codec import GZIP
from spikebridge.pipeline.shards.manifest import SPLITS, Manifest
from spikebridge.pipeline.shards.writer import ARRAYS, FRAMES, MEMBERS, PREVIEW

VERSION = "http://mlcommons.org/croissant/1.1"
RAI_VERSION = "http://mlcommons.org/croissant/RAI/1.0"
TYPES = {
    ".tar": "application/x-tar",
    ".h5": "application/x-hdf5",
    ".npy": "application/octet-stream",
    ".md": "text/markdown",
    ".jsonl": "application/jsonlines",
}
"""MIME types by ending."""
CONTEXT: dict[str, Any] = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    **{
        name: f"cr:{name}"
        for name in (
            *("arrayShape", "citeAs", "column", "containedIn", "equivalentProperty", "excludes", "extract", "field"),
            *("fileObject", "fileProperty", "fileSet", "format", "includes", "isArray", "isLiveDataset", "jsonPath"),
            *("key", "md5", "parentField", "path", "recordSet", "references", "regex", "repeated", "replace"),
            *("samplingRate", "separator", "source", "subField", "transform"),
        )
    },
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "description": {"@container": "@language"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "name": {"@container": "@language"},
    "prov": "http://www.w3.org/ns/prov#",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "sc": "https://schema.org/",
}


def describe_set(manifest: Manifest, card: DatasetCard) -> dict[str, Any]:
    """Return the content of croissant.json, a function of the sealed manifest and the reader's facts."""
    settings, sample = manifest["settings"], manifest["sample"]
    shape = "x".join(map(str, sample["shape"]))
    counts = ", ".join(f"{manifest['splits'][name]['samples']:,} {name}" for name in SPLITS)
    simulated = "The event recordings are simulated. " if manifest["simulated"] else ""
    described: dict[str, Any] = {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": [VERSION, RAI_VERSION],
        "name": f"{settings['dataset']}-{manifest['self_sha256'][:12]}",
        "description": (
            f"{card.title}. {simulated}Event-camera recordings as {settings['dtype']} frames [T,P,H,W] = [{shape}] "
            f"(P: 0 OFF, 1 ON), with static images of the same classes: {counts}. {split_by_shards(manifest)}"
        ),
        "license": card.licence,
        "citeAs": card.citation,
        "version": f"1.0.0+{manifest['self_sha256'][:12]}",
        "identifier": manifest["self_sha256"],
        "keywords": ["event camera", "neuromorphic", "spiking neural networks"],
        "isLiveDataset": False,
        **(
            {"url": links[0], "isBasedOn": links} if (links := re.findall(r"https?://[^\s,;)]+", card.download)) else {}
        ),
        **_responsible_use(manifest, card),
        "distribution": _distribution(manifest),
        "recordSet": _record_sets(manifest),
    }
    return described


def _responsible_use(manifest: Manifest, card: DatasetCard) -> dict[str, Any]:
    """Return the RAI fields: how the data was made, and what it cannot show."""
    settings, classes = manifest["settings"], manifest["classes"]
    kind = manifest["pairing"]["kind"]
    made = "Recordings simulated by a model of an event camera" if manifest["simulated"] else "Event-camera recordings"
    binned = [f"{name}: {value}" for name, value in sorted(settings.items())]
    limits = [
        PROTOCOL_TEXT[settings["protocol"]].replace("**", "").replace("`", ""),
        PAIRING_TEXT[kind].replace("`", ""),
    ]
    if manifest["simulated"]:
        limits.insert(0, "The recordings are simulated: accuracy on them says little about a real camera.")
    limits += [show(note, most=len(note)) for note in manifest["notes"]]
    if empty := manifest["static"]["classes_without_pool"]:
        limits.append(f"No static image is left in the pool of: {show(', '.join(empty), most=2**16)}")
    per_class = [
        sum(counts) for counts in zip(*(manifest["splits"][name]["per_class"] for name in SPLITS), strict=True)
    ]
    return {
        "rai:dataCollection": f"{made}, with static images: {card.title}. Source: {card.download}",
        "rai:dataCollectionType": ["Software Collection" if manifest["simulated"] else "Direct Measurement"],
        "rai:dataCollectionRawData": f"{card.download}; SHA-256 of the list of raw files: {manifest['listing_sha256']}",
        "rai:dataCollectionMissingData": f"{manifest['rejected']:,} recordings or images dropped, see rejects.jsonl",
        "rai:dataPreprocessingProtocol": ["Events were binned into frames by spikebridge with these settings", *binned],
        "rai:dataBiases": [
            f"{len(classes):,} classes of {min(per_class, default=0):,} to {max(per_class, default=0):,} recordings"
        ],
        "rai:dataLimitations": limits,
        "rai:dataUseCases": ["Training and testing of classifiers of event-camera recordings"],
        "rai:dataReleaseMaintenancePlan": f"The set is fixed: its ID {manifest['self_sha256']} is the hash of its "
        "manifest, which holds the hash of every file; a changed set has another ID.",
    }


def _distribution(manifest: Manifest) -> list[dict[str, Any]]:
    """Return every file of the set, and of a set in tars their members as file sets."""
    files: list[dict[str, Any]] = [
        {
            "@type": "cr:FileObject",
            "@id": entry["name"],
            "name": entry["name"],
            "contentUrl": entry["name"],
            "contentSize": f"{entry['bytes']} B",
            "encodingFormat": TYPES.get(PurePath(entry["name"]).suffix, "application/octet-stream"),
            "sha256": entry["sha256"],
        }
        for entry in manifest["files"]
    ]
    tars = [{"@id": entry["name"]} for entry in manifest["files"] if entry["name"].endswith(".tar")]
    if not tars:
        return files
    packed = ", packed with gzip" if _packed(manifest) else ""
    sets = [
        {
            "@type": "cr:FileSet",
            "@id": name,
            "name": name,
            "description": "One file a sample, an .npy "
            + ("array [T,P,H,W]" if name == FRAMES else "array of bytes, compact events")
            + packed,
            "containedIn": tars,
            "encodingFormat": "application/octet-stream",
            "includes": f"*.{member}",
        }
        for name, member in _members(manifest).items()
    ]
    if manifest["settings"].get("preview"):
        sets.append(
            {
                "@type": "cr:FileSet",
                "@id": "previews",
                "name": "previews",
                "description": "One picture a sample, for people: all its events in one frame",
                "containedIn": tars,
                "encodingFormat": "image/png",
                "includes": f"*.{PREVIEW}",
            }
        )
    return [*files, *sets]


def _members(manifest: Manifest) -> dict[str, str]:
    """Return the endings of the members of a tar that hold frames and events, those that are stored."""
    store = manifest["settings"].get("store", FRAMES)
    members = MEMBERS[store, manifest["settings"]["codec"]]
    return {array: next(name for name in members if name.startswith(array)) for array in ARRAYS[store]}


def _packed(manifest: Manifest) -> bool:
    return bool(manifest["settings"]["codec"] == GZIP)


def _record_sets(manifest: Manifest) -> list[dict[str, Any]]:
    """Return splits, classes and samples; samples only of tars, whose members the format can name."""
    labels = [{"classes/label": label, "classes/name": name} for label, name in enumerate(manifest["classes"])]
    kinds = {"train": "cr:TrainingSplit", "validation": "cr:ValidationSplit", "test": "cr:TestSplit"}
    splits = [{"splits/name": name, "splits/url": kind.replace("cr:", CONTEXT["cr"])} for name, kind in kinds.items()]
    sets: list[dict[str, Any]] = [
        {
            "@type": "cr:RecordSet",
            "@id": "splits",
            "name": "splits",
            "dataType": "cr:Split",
            "key": {"@id": "splits/name"},
            "field": [_field("splits/name", "sc:Text"), _field("splits/url", "sc:URL")],
            "data": splits,
        },
        {
            "@type": "cr:RecordSet",
            "@id": "classes",
            "name": "classes",
            "dataType": "sc:Enumeration",
            "key": {"@id": "classes/label"},
            "field": [_field("classes/label", "sc:Integer"), _field("classes/name", "sc:Text")],
            "data": labels,
        },
    ]
    if manifest["settings"]["format"] != "webdataset":
        return sets
    members = _members(manifest)
    store, ending = next((name, re.escape(member)) for name, member in members.items())
    shape = ",".join(map(str, manifest["sample"]["shape"]))
    frames = f"{manifest['settings']['dtype']} [T,P,H,W] = [{shape}]"
    npy = {
        name: f"The bytes of an .npy file: {frames if name == FRAMES else 'uint8 [bytes], compact events'}"
        for name in members
    }
    fields = [
        _field("samples/key", "sc:Text", store=store, found=rf"^(.+)\.{ending}$"),
        _field("samples/split", "sc:Text", store=store, found=r"^(train|validation|test)-"),
        _field("samples/label", "sc:Integer", store=store, found=r"^[a-z]+-(\d+)-"),
        *(
            {**_field(f"samples/{name}", "sc:Text", store=name, content=True), "description": npy[name]}
            for name in members
        ),
    ]
    samples = {
        "@type": "cr:RecordSet",
        "@id": "samples",
        "name": "samples",
        "description": "One record a recording; splits and labels are explained by the other record sets.",
        "key": {"@id": "samples/key"},
        "field": fields,
    }
    return [*sets, samples]


def _field(name: str, kind: str, *, store: str = FRAMES, found: str = "", content: bool = False) -> dict[str, Any]:
    """Return a field; of a sample its content, or what a regular expression finds in the name of its file."""
    field: dict[str, Any] = {"@type": "cr:Field", "@id": name, "name": name, "dataType": kind}
    if found or content:
        field["source"] = {
            "fileSet": {"@id": store},
            "extract": {"fileProperty": "content" if content else "filename"},
            **({"transform": {"regex": found}} if found else {}),
        }
    return field
