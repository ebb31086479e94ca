"""What each worker keeps of its own examples beside the weights, as batch norm does."""

import torch
from torch import nn

from scaling.training.parallel.workers import Workers


@torch.no_grad()
def average_buffers(model: nn.Module, workers: Workers) -> None:
    """Give the workers that share a batch the mean of their running statistics; called by all.

    Those are the floating-point buffers that are saved with the weights; without any nothing is
    exchanged. Equal ones stay as they are, since float64 adds them up exactly. A running mean may
    be averaged at any time: averages of averages do not depend on when.
    """
    if workers.world_size == 1:
        return
    saved = model.state_dict().keys()
    buffers = [
        buffer
        for name, buffer in model.named_buffers()
        if name in saved and buffer.is_floating_point()
    ]
    if not buffers:
        return
    total = workers.sum_tensor(torch.cat([buffer.double().flatten() for buffer in buffers]))
    means = (total / workers.world_size).split([buffer.numel() for buffer in buffers])
    for buffer, mean in zip(buffers, means, strict=True):
        buffer.copy_(mean.view_as(buffer))
