"""What families predict that write: each target token, given those before it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from torch import Tensor, nn

from scaling.records.metrics import Metric, Unit
from scaling.tasks.data.ragged import IntArray
from scaling.tasks.data.rows import Split
from scaling.tasks.scores import PERPLEXITY, share
from scaling.tasks.target_loss import target_loss_sum, target_losses
from scaling.tasks.task import Batch, ExampleLosses
from scaling.tasks.text_task import BatchLosses, Examples, Forward, label_frequency_losses

BITS_PER_BYTE = Metric(
    "bits per byte", "Validation loss in bits over the bytes of the predicted text: "
    "comparable between tokenizers.",
    unit="bits/byte", direction="minimize", least=0,
)  # fmt: skip


@dataclass(frozen=True)
class TokenObjective:
    """Target tokens, an end among them; see `scaling.tasks.text_task.Objective`.

    Attributes:
        vocab_size: Ids of the tokenizer.
        given: What the model reads before a token, as in `those before them`.
        num_bytes: [N] bytes of predicted text of each validation example, where bits per byte are
            wanted. A text without a prompt lacks its first token; the nats of ends count too.
    """

    forward: Forward
    examples: Mapping[Split, Examples]
    vocab_size: int
    given: str
    num_bytes: IntArray | None = None
    loss_unit: Unit = "nats"

    def loss_sum(self, model: nn.Module, batch: Batch, *, label_smoothing: float) -> Tensor:
        """Cross entropy summed over the tokens that count, in nats."""
        return target_loss_sum(
            self.forward, model, batch, vocab_size=self.vocab_size, label_smoothing=label_smoothing
        )

    def baseline_losses(self, counts: Mapping[Split, int]) -> dict[Split, ExampleLosses]:
        """Losses of guessing every target token by its frequency in the training split."""
        return label_frequency_losses(self.examples, counts, num_values=self.vocab_size)

    def evaluate(self, model: nn.Module, batch: Batch) -> BatchLosses:
        """Losses of single examples."""
        return BatchLosses(*target_losses(self.forward, model, batch, vocab_size=self.vocab_size))

    @property
    def described_metrics(self) -> Mapping[str, Metric]:
        """Token accuracy, perplexity, and bits per byte of predicted text where they are wanted."""
        help = f"Share of target tokens that are the likeliest one given {self.given}."
        described = {"accuracy": share("token accuracy", help), "perplexity": PERPLEXITY}
        return described if self.num_bytes is None else described | {"bits_per_byte": BITS_PER_BYTE}

    def metrics(self, validation: ExampleLosses) -> dict[str, float]:
        """Token accuracy, perplexity, and bits per byte of predicted text where they are wanted."""
        found = {"accuracy": validation.accuracy, "perplexity": float(np.exp(validation.loss))}
        if self.num_bytes is not None:
            num_bytes = int(self.num_bytes[: len(validation.loss_sums)].sum())
            bits = float(validation.loss_sums.sum()) / math.log(2)
            found |= {"bits_per_byte": bits / num_bytes} if num_bytes else {}
        return found
