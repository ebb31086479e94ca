"""What is measured without computing anything prints nothing of how."""

from contextlib import nullcontext

import torch

from scaling.training.memory.footprint import footprint


def test_a_module_that_copies_its_layers_is_measured_without_a_warning() -> None:
    """torch warns once a process that a fake tensor lies nowhere; a plan printed that."""

    def build() -> torch.nn.Module:
        layer = torch.nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        return torch.nn.TransformerEncoder(layer, 2)

    torch.set_warn_always(True)
    try:
        found = footprint(build, lambda model, n: model(torch.zeros(n, 4, 8)).sum(), nullcontext)
    finally:
        torch.set_warn_always(False)
    assert found.parameters == found.trained > 0
