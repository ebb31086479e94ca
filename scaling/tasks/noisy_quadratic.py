"""The noisy quadratic model, as an ensemble of independent chains trained at once.

Source: Zhang et al. 2019 (arXiv:1907.04164) sec. 3: curvature h_i = 1 / i, gradient
h_i x_i + N(0, h_i / B), x_0 ~ N(0, I).

What is known of the ensemble is here, and its numbers are in `model/chains.py`, which is imported
when there are any: a plan of such a study is there at once, without torch and numpy.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from scaling.records.metrics import Metric, Unit
from scaling.spec.evaluation import Evaluation
from scaling.spec.workloads import NoisyQuadratic
from scaling.tasks.data.rows import Split
from scaling.tasks.task import Batch, ExampleLosses, Indices

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray
    from torch import Tensor, nn


def prepare(workload: NoisyQuadratic, evaluation: Evaluation) -> NoisyQuadraticTask:  # noqa: ARG001
    """The ensemble; its loss is exact, so that no subset is evaluated."""
    return NoisyQuadraticTask(workload)


class NoisyQuadraticTask:
    """See `scaling.tasks.task.Task`; an example is one draw of gradient noise for every chain.

    The gradient of a micro-batch of m examples is the mean of m draws, N(0, h / m), drawn at
    once. So another cut of a batch, into workers, micro-batches or a noise estimate's groups,
    has other draws of the same distribution, where data have the same gradient. The training
    loss has the value of the mean over the chains and the gradient of their sum, so that each
    chain follows its own gradient. What is recorded of gradients (their norm, |G|² and tr Σ) is
    of one chain, in the mean square over them.
    """

    num_train = None
    loss_unit: Unit = ""
    targets_known_ahead = True
    draws_examples = False  # each by its own number
    targets_per_example = 1.0
    tokens_per_example = None
    baseline = None
    num_dropped = 0
    data_summary = None
    token_model = None
    splits: tuple[Split, ...] = ("validation",)

    def __init__(self, workload: NoisyQuadratic) -> None:
        self.workload = workload
        # By name: a field that is added with a default does not change the content.
        drawn = workload.model_dump_json(include={"task", "num_dimensions", "num_chains"})
        self.content_hash = hashlib.sha256(drawn.encode()).hexdigest()

    @property
    def num_models(self) -> int:
        """The chains."""
        return self.workload.num_chains

    def new_model(
        self,
        seed: int,
        *,
        dropout: float | None = None,  # noqa: ARG002
        lora_rank: int | None = None,  # noqa: ARG002
    ) -> nn.Module:
        """Chains that start from N(0, I); they have neither dropout nor adapters."""
        from scaling.tasks.model.chains import Chains

        return Chains(self.workload.num_chains, self.workload.num_dimensions, seed)

    def num_targets(self, indices: Indices) -> int:
        """One for each example."""
        return len(indices)

    def targets_of_each(self, indices: Indices) -> NDArray[np.float64]:
        """[B] ones."""
        return (indices * 0 + 1).astype("float64")

    def begin_batch(self) -> None:
        """Nothing: targets are known ahead."""

    def num_tokens(self, indices: Indices) -> int:  # noqa: ARG002
        """None: an example is noise."""
        return 0

    def lengths(self, indices: Indices) -> Indices:
        """Nothing: the noise of all examples together is drawn at once."""
        return indices * 0

    def collate(self, indices: Indices, seed: int) -> Batch:
        """The mean of these examples' gradient noise, [num_chains, num_dimensions]."""
        from scaling.tasks.model.chains import mean_noise

        return mean_noise(self.workload.num_chains, self.workload.num_dimensions, indices, seed)

    def loss_sum(
        self,
        model: nn.Module,
        batch: Batch,
        *,
        label_smoothing: float = 0.0,  # noqa: ARG002  # there are no labels
    ) -> Tensor:
        """Noisy loss of a mean chain, summed over examples; its gradient is of all chains' sum."""
        losses = model(batch["noise"])
        over_chains = losses.sum()
        mean = over_chains + (losses.mean() - over_chains).detach()
        return mean * batch["num_examples"]

    def baseline_losses(self) -> dict[Split, ExampleLosses]:
        """None: there is nothing to guess."""
        return {}

    def num_evaluated(self, split: Split) -> int:  # noqa: ARG002  # the loss is exact
        """The chains."""
        return self.workload.num_chains

    def example_losses(
        self,
        model: nn.Module,
        split: Split,  # noqa: ARG002
        part: slice,
        device: torch.device,  # noqa: ARG002
    ) -> ExampleLosses:
        """The exact loss of each chain."""
        from scaling.tasks.model.chains import exact_losses

        return exact_losses(model, part)

    @property
    def described_metrics(self) -> Mapping[str, Metric]:
        """None."""
        return {}

    def metrics(self, validation: ExampleLosses) -> dict[str, float]:  # noqa: ARG002
        """None."""
        return {}
