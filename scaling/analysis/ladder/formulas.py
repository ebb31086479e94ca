"""Published formulas of a large run's learning rate and batch."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from scaling.analysis.ladder.question import LadderQuestion

Role = Literal["parameters", "tokens"]

_PARAMETERS = frozenset(
    {
        "n", "params", "parameters", "num_params", "n_params", "nparams", "num_parameters",
        "n_parameters", "model_size", "num_parameters_without_embeddings", "non_embedding_params",
    }
)  # fmt: skip
_TOKENS = frozenset(
    {
        "d", "tokens", "num_tokens", "n_tokens", "train_tokens", "training_tokens",
        "total_tokens", "token_budget", "ntokens",
    }
)  # fmt: skip

STEP_LAW, DEEPSEEK, MINICPM = "step_law", "deepseek", "minicpm"


@dataclass(frozen=True)
class Recipe:
    """What a formula recommends.

    Attributes:
        batch: In the unit of the table's batch.
        rate: None where the formula is of the batch alone.
    """

    batch: float
    rate: float | None


def role_of(name: str) -> Role | None:
    """What a number of a size is by its name; None where that is not known."""
    plain = name.split(".")[-1].split("/")[-1].strip().lower().replace(" ", "_").replace("-", "_")
    if plain in _PARAMETERS:
        return "parameters"
    return "tokens" if plain in _TOKENS else None


def parameters_and_tokens(
    question: LadderQuestion, scale: Sequence[float]
) -> tuple[float, float] | None:
    """N and D of a size; None where its numbers are not these two."""
    found = dict(zip(map(role_of, question.scale), scale, strict=True))
    if "parameters" in found and "tokens" in found:
        return found["parameters"], found["tokens"]
    return None


def step_law(num_parameters: float, num_tokens: float) -> tuple[float, float]:
    """Peak rate and batch in tokens: 1.79 N^-0.713 D^0.307 and 0.58 D^0.571.

    Source: Li et al. 2025, Predictable scale: part I, Step Law (arXiv:2503.04715), eq. 1. N counts
        parameters without embeddings.
    """
    rate = 1.79 * num_parameters**-0.713 * num_tokens**0.307
    return rate, 0.58 * num_tokens**0.571


def deepseek(num_parameters: float, num_tokens: float) -> tuple[float, float]:
    """Peak rate and batch in tokens: 0.3118 C^-0.125 and 0.2920 C^0.3271, with C = 6ND.

    Source: Bi et al. 2024, DeepSeek LLM (arXiv:2401.02954), sec. 3.1. Theirs counts the FLOPs of
        attention as well and no embeddings; 6ND is what a table of N and D allows.
    """
    flops = 6 * num_parameters * num_tokens
    return 0.3118 * flops**-0.125, 0.2920 * flops**0.3271


def minicpm_batch(loss: float) -> float:
    """Batch in tokens from the loss that the run comes to: 1.21e9 / L^6.24.

    Source: Hu et al. 2024, MiniCPM (arXiv:2404.06395), sec. 3.2. It was fitted with their
        tokenizer on C4; the rate there is 0.01 at every size, for their parametrization alone.
    """
    return 1.21e9 / loss**6.24


def formulas(
    question: LadderQuestion, scale: Sequence[float], loss: float | None
) -> dict[str, Recipe]:
    """The formulas that apply to a size, by name.

    Args:
        question: With both N and D among the scale's names and a known number of tokens in a unit
            of the batch; else no formula applies.
        scale: The size.
        loss: That runs of this size come to; None leaves out what needs it.
    """
    unit, numbers = question.tokens_per_example, parameters_and_tokens(question, scale)
    if unit is None or numbers is None:
        return {}
    pairs = {STEP_LAW: step_law(*numbers), DEEPSEEK: deepseek(*numbers)}
    found = {name: Recipe(batch / unit, rate) for name, (rate, batch) in pairs.items()}
    if loss is not None:
        found[MINICPM] = Recipe(minicpm_batch(loss) / unit, None)
    return found
