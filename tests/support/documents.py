"""Commands and code as the documents show them: what the README indents, and what pages of docs/ put between fences."""

import re
import shlex
from argparse import Namespace
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from conftest import make_events, write_nmnist_raw
from PIL import Image

from spikebridge.models import build_model
from spikebridge.models.published import published_names
from spikebridge.pipeline.formats.bin40 import encode

FENCE = re.compile(r"^```(?:\{code-block\} )?(\w+)$")
CAPTION = ":caption: "
EXIT_CODE = re.compile(r"exit code (\d+)")


@dataclass(frozen=True)
class Block:
    """One block of code.

    Args:
        language: behind the fence; empty for an indented block.
        file: caption: what the block is to be saved as, or changes; empty for none.
        lines: of the block.
        where: file and line, for messages.
    """

    language: str
    file: str
    lines: tuple[str, ...]
    where: str

    @property
    def text(self) -> str:
        return "\n".join(self.lines) + "\n"

    def commands(self) -> list[tuple[str, int]]:
        """Lines of a shell block, and the exit code that a comment behind each announces (0 without)."""
        found = []
        for line in self.lines:
            code = EXIT_CODE.search(line.partition(" # ")[2])
            found.append((line.partition(" # ")[0], int(code[1]) if code else 0))
        return found


def fenced(path: Path) -> list[Block]:
    """The fenced blocks of a page, in order."""
    blocks = []
    lines = iter(enumerate(path.read_text().splitlines(), start=1))
    for number, line in lines:
        match = FENCE.match(line)
        if match is None:
            continue
        inside = []
        for _, content in lines:
            if content == "```":
                break
            inside.append(content)
        file = ""
        if inside and inside[0].startswith(CAPTION):
            file = inside.pop(0).removeprefix(CAPTION).strip("`")
        blocks.append(Block(match[1], file, tuple(inside), f"{path.name}:{number}"))
    return blocks


def indented(path: Path) -> list[Block]:
    """The blocks of a document that are indented by four spaces, in order."""
    blocks: list[Block] = []
    inside: list[str] = []
    for number, line in enumerate([*path.read_text().splitlines(), ""], start=1):
        if line.startswith("    "):
            inside.append(line[4:])
        elif inside:
            blocks.append(Block("", "", tuple(inside), f"{path.name}:{number - len(inside)}"))
            inside = []
    return blocks


def verbs(block: Block) -> list[list[str]]:
    """Arguments of every `spikebridge` line of a block, without its comment."""
    return [shlex.split(line, comments=True)[1:] for line in block.lines if line.startswith("spikebridge ")]


def apply_change(block: Block, root: Path) -> None:
    """Change a file as a `diff` block shows: its lines of `-` and ` ` stand there once; they become those of `+`."""
    path = root / block.file
    old = "".join(line[1:] + "\n" for line in block.lines if line[:1] in "- ")
    new = "".join(line[1:] + "\n" for line in block.lines if line[:1] in "+ ")
    text = path.read_text()
    assert text.count(old) == 1, f"{block.where}: {block.file} holds these lines {text.count(old)} times:\n{old}"
    path.write_text(text.replace(old, new))


def write_own_data(root: Path) -> None:
    """What the first page takes for granted: `recordings` and `photos`, two classes of 10 pairs each."""
    rng = np.random.default_rng(0)
    for c, label in enumerate(("cat", "dog")):
        for folder in ("recordings", "photos"):
            (root / folder / label).mkdir(parents=True)
        for number in range(10):
            events = make_events(10 * c + number, size=(64, 48))
            np.savez(root / "recordings" / label / f"{number:04d}.npz", t=events.t, x=events.x, y=events.y, p=events.p)
            pixels = rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / "photos" / label / f"{number:04d}.png")
    (root / "recordings" / "sensor.txt").write_text("64 48\n")


def write_what_readers_have(root: Path, *, photos: int) -> None:
    """What the documents take for granted: raw data of two sets, photographs of two classes, a published checkpoint."""
    nmnist = write_nmnist_raw(root / "nmnist", train=80, test=20, classes=10)
    (nmnist / "events").rename(root / "N-MNIST")
    (nmnist / "static").rename(root / "MNIST")
    for c, label in enumerate(("accordion", "yin_yang")):
        for i in range(1, 13):
            recording = root / "N-Caltech101" / "Caltech101" / label / f"image_{i:04d}.bin"
            photograph = root / "Caltech101" / "101_ObjectCategories" / label / f"image_{i:04d}.jpg"
            for path in (recording, photograph):
                path.parent.mkdir(parents=True, exist_ok=True)
            recording.write_bytes(encode(make_events(100 * c + i, size=(100, 80))))
            pixels = np.random.default_rng(100 * c + i).integers(0, 256, (40, 50, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(photograph)
    for label in ("cat", "dog"):
        (root / "photos" / label).mkdir(parents=True)
        for i in range(photos):
            pixels = np.random.default_rng(i).integers(0, 256, (24, 32, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / "photos" / label / f"{i:04d}.jpg")
    net = build_model("scnn", num_classes=10, time_steps=10)  # the network of recipe nmnist, as others would save it
    state = {theirs: net.state_dict()[ours] for ours, theirs in published_names(net).items()}
    state |= {f"coefficient.{t}": torch.ones(1) for t in range(10)}
    torch.save({"epoch": 9, "arch": "SCNN", "state_dict": state, "args": Namespace()}, root / "model_best.pth.tar")
