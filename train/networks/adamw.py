"""AdamW without torch.compile: a process that trains does not load the compiler."""

from __future__ import annotations

import inspect

import torch
from torch import optim


class AdamW(optim.AdamW):
    """Compute torch's AdamW by torch's own methods, less the wrappers that stop a compiler at each of them.

    Their first call imports `torch._dynamo`, three seconds of processor time in every process that trains.
    """

    add_param_group = inspect.unwrap(optim.AdamW.add_param_group)
    zero_grad = inspect.unwrap(optim.AdamW.zero_grad)
    state_dict = inspect.unwrap(optim.AdamW.state_dict)
    load_state_dict = inspect.unwrap(optim.AdamW.load_state_dict)
    step = torch.no_grad()(inspect.unwrap(optim.AdamW.step))
