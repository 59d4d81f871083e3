"""SpikingJelly's multi-step quarter VGG-SNN in a process and an environment of its own.

Its environment is the one that `spikingjelly_frames.py` describes. The same layers, step mode "m": convolutions see all
time steps as one batch, neurons run over them in one autograd function of each layer. Its BatchNorm takes statistics
over time too, so it computes something else; the loss is the published one, all time steps at once. With one stream it
classifies recordings alone.

Protocol: first line in, JSON {"B", "T", "K", "size", "width"}, and where wanted "threads", "streams" (2), "device"
("cpu") and "precision" ("fp32" or "bf16", by autocast); then a line per round, a number of steps, answered by a line of
JSON once they are done. The parent takes the time. The answer to the first line holds the backend of the neurons, the
fastest that runs, and the bytes kept for backward, on CUDA those allocated at most in a step.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch

OPERATORS = torch.library.Library("torchvision", "DEF")  # see spikingjelly_frames.py
for operator in ("nms", "qnms"):
    OPERATORS.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

sys.path[:0] = [str(Path(__file__).resolve().parents[2] / "src"), str(Path(__file__).resolve().parent)]


def main() -> None:
    """Answer one line per round."""
    from spikingjelly.activation_based import functional, layer, neuron, surrogate
    from training import DOMAIN, Case, kept, stepper

    from spikebridge.models.output import TransferOutput
    from spikebridge.models.vgg import CONVOLUTIONS, POOLED
    from spikebridge.train.losses import classification_loss, transfer_loss

    task = json.loads(sys.stdin.readline())
    if "threads" in task:
        torch.set_num_threads(task["threads"])
    device, streams = torch.device(task.get("device", "cpu")), task.get("streams", 2)
    narrow = {"fp32": None, "bf16": torch.bfloat16}[task.get("precision", "fp32")]
    case = Case("", "vgg_snn", K=task["K"], T=task["T"], B=task["B"], size=task["size"], width=task["width"])

    # on CUDA one that its Triton kernels know
    slope = surrogate.ATan if device.type == "cuda" else surrogate.PiecewiseQuadratic

    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            layers, channels = [], 2
            for index, published in CONVOLUTIONS:
                wide = max(1, round(published * case.width))
                layers += [
                    layer.Conv2d(channels, wide, 3, padding=1, bias=False),
                    layer.BatchNorm2d(wide),
                    neuron.LIFNode(
                        tau=2.0, v_threshold=0.5, v_reset=0.0, detach_reset=True,
                        surrogate_function=slope(),
                        store_v_seq=streams == 2 and index == CONVOLUTIONS[-1][0],
                    ),
                ]  # fmt: skip
                if index in POOLED:
                    layers.append(layer.AvgPool2d(2))
                channels = wide
            self.encoder = torch.nn.Sequential(*layers)
            self.last = layers[-2]
            flat = channels * (case.size // 16) ** 2
            self.heads = torch.nn.ModuleList([torch.nn.Linear(flat, case.K) for _ in range(2)])
            self.coefficients = torch.nn.Parameter(torch.ones(case.T))
            functional.set_step_mode(self.encoder, "m")

        def classify(self, event: torch.Tensor) -> torch.Tensor:
            functional.reset_net(self.encoder)
            logits: torch.Tensor = self.heads[1](self.encoder(event).flatten(2))
            return logits

        def forward(self, static: torch.Tensor, event: torch.Tensor) -> TransferOutput:
            logits, features = [], []
            for frames, head in zip((static, event), self.heads, strict=True):
                functional.reset_net(self.encoder)
                logits.append(head(self.encoder(frames).flatten(2)))
                features.append(self.last.v_seq.flatten(2))
            return TransferOutput(*logits, torch.stack(features).permute(2, 0, 1, 3))

    torch.manual_seed(0)
    net = Network().train().to(device)
    static, event, labels = (each.to(device) for each in case.batch(case.B, torch.float32))

    def loss() -> torch.Tensor:
        with torch.autocast(device.type, dtype=narrow, enabled=narrow is not None):
            if streams == 2:
                out = net(static, event)
                return transfer_loss(out, labels, net.coefficients, domain_coefficient=DOMAIN).total
            logits = net.classify(event)
        return classification_loss(logits.float(), labels, tet=True)

    def fastest() -> str:
        for backend in ("triton", "cupy"):
            try:
                functional.set_backend(net, backend)
                loss().backward()
            except Exception:  # whatever it lacks, the next one is tried
                continue
            return backend
        functional.set_backend(net, "torch")
        return "torch"

    backend = fastest() if device.type == "cuda" else "torch"
    step = stepper(loss, net.parameters(), **({"fused": True} if device.type == "cuda" else {}))
    if device.type == "cuda":
        step(0)
        torch.cuda.reset_peak_memory_stats()
        step(0)
        torch.cuda.synchronize()
        most = torch.cuda.max_memory_allocated()
    else:
        with kept(list(net.parameters())) as held:
            held_by = loss()
        most = sum(held.values())
        del held_by
    print(json.dumps({"bytes": most, "backend": backend}), flush=True)
    for line in sys.stdin:
        for number in range(int(line)):
            step(number)
        if device.type == "cuda":
            torch.cuda.synchronize()
        print(json.dumps({"done": True}), flush=True)


if __name__ == "__main__":
    main()
