"""What is known of each optimizer without building it: one entry an optimizer, without torch.

The file of the same name in this folder builds it. Whatever asks about an optimizer, as the checks
of a study file, the estimate of memory and the rules that carry a recipe do, reads this table.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

Derivation = Literal["adam_sde", "surge", "token_half_life", "timescale"]
"""A rule that moves hyperparameters with the batch and is derived for some optimizers only."""


@dataclass(frozen=True)
class OptimizerFacts:
    """One optimizer, as far as a study file, a plan and a rule must know it.

    Attributes:
        reads: The hyperparameters that it reads beside peak_lr and weight_decay, each with its
            usual value, which stands where a study gives none.
        num_moments: Tensors of a weight's size that it keeps for each weight, at most.
        moments_need_momentum: Whether it keeps them only where momentum is above 0.
        is_elementwise: Whether each entry of a weight moves by its own gradient alone, wherever
            the tensor is cut.
        derivations: The rules that hold for it.
        reads_weight_decay: Whether it reads that too.
        usual_lr_rule: How its rate grows with the batch where a study does not say: linear where
            a step is as long as its gradient, sqrt where it is not.
        other_names: What other tools call it, in lower case.
    """

    reads: Mapping[str, float]
    num_moments: int
    is_elementwise: bool
    derivations: frozenset[Derivation]
    usual_lr_rule: Literal["linear", "sqrt"] = "sqrt"
    moments_need_momentum: bool = False
    reads_weight_decay: bool = True
    other_names: tuple[str, ...] = ()


OPTIMIZERS: Final[Mapping[str, OptimizerFacts]] = {
    "adamw": OptimizerFacts(
        reads={"beta1": 0.9, "beta2": 0.999, "eps": 1e-8},
        num_moments=2,
        is_elementwise=True,
        derivations=frozenset({"adam_sde", "surge", "token_half_life", "timescale"}),
        other_names=(
            "adam",
            "adamw_torch",
            "adamw_torch_fused",
            "adamw_hf",
            "adamw_apex_fused",
            "fusedadam",
            "adamw_fused",
            "adamw_8bit",
        ),
    ),
    "sgd": OptimizerFacts(
        reads={"momentum": 0.0, "nesterov": False},
        num_moments=1,
        moments_need_momentum=True,
        is_elementwise=True,
        derivations=frozenset({"timescale"}),
        usual_lr_rule="linear",
        other_names=("sgd_momentum", "momentum", "torch_sgd"),
    ),
    # The trust ratios of LAMB and LARS take the decay in, so lr × weight_decay sets no timescale.
    "lamb": OptimizerFacts(
        reads={"beta1": 0.9, "beta2": 0.999, "eps": 1e-6},
        num_moments=2,
        is_elementwise=False,
        derivations=frozenset({"surge", "token_half_life"}),
    ),
    "lars": OptimizerFacts(
        reads={"momentum": 0.9},
        num_moments=1,
        is_elementwise=False,
        derivations=frozenset(),
        usual_lr_rule="linear",
    ),
    # Of a matrix it keeps the means of rows and columns, which are next to nothing.
    "adafactor": OptimizerFacts(
        reads={}, num_moments=0, is_elementwise=False, derivations=frozenset({"surge", "timescale"})
    ),
    "lion": OptimizerFacts(
        reads={"beta1": 0.9, "beta2": 0.99},
        num_moments=1,
        is_elementwise=True,
        derivations=frozenset({"surge", "timescale"}),
    ),
    # One moment of the hidden matrices, AdamW's two of the other weights.
    "muon": OptimizerFacts(
        reads={"momentum": 0.95, "beta1": 0.9, "beta2": 0.95, "eps": 1e-8},
        num_moments=2,
        is_elementwise=False,
        derivations=frozenset({"token_half_life", "timescale"}),
    ),
    # What a LightningModule configures. Nothing is known of it before it is built: its memory is
    # taken to be that of two moments, and no rule is derived for it.
    "module": OptimizerFacts(
        reads={},
        num_moments=2,
        is_elementwise=False,
        derivations=frozenset(),
        reads_weight_decay=False,
        other_names=("configure_optimizers", "own"),
    ),
}


def usual_value(optimizer: str, hyperparameter: str) -> float | None:
    """What a hyperparameter is where a study does not give it; None where it is not read."""
    return OPTIMIZERS[optimizer].reads.get(hyperparameter)


def optimizers_that_read(hyperparameter: str) -> frozenset[str]:
    """Names of the optimizers that read a hyperparameter."""
    return frozenset(name for name, facts in OPTIMIZERS.items() if hyperparameter in facts.reads)


def elementwise_optimizers() -> tuple[str, ...]:
    """Names of the optimizers that work on any cut of the weights, in the table's order."""
    return tuple(name for name, facts in OPTIMIZERS.items() if facts.is_elementwise)


def optimizers_without(derivation: Derivation) -> frozenset[str]:
    """Names of the optimizers that a rule is not derived for."""
    return frozenset(n for n, facts in OPTIMIZERS.items() if derivation not in facts.derivations)


def num_moments(optimizer: str, *, has_momentum: bool) -> int:
    """Tensors of a weight's size that an optimizer keeps for each weight, at most."""
    facts = OPTIMIZERS[optimizer]
    return 0 if facts.moments_need_momentum and not has_momentum else facts.num_moments
