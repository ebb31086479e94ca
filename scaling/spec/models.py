"""The model of a study: random weights of some sizes, or trained ones."""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, cast

from pydantic import Discriminator, Field, Tag, model_validator
from pydantic_core import PydanticCustomError

from scaling.spec.fields import (
    BelowOne,
    LocalPath,
    PositiveFloat,
    PositiveInt,
    Section,
    Whole,
    Width,
)

BUILTIN_MODELS = ("minilm",)
"""Trained models that come with one of the package's extras, as in pretrained: builtin:minilm."""


class FromScratch(Section):
    """A model with random weights, built by transformers from an architecture and sizes."""

    architecture: str
    """A transformers model type, as in llama, gpt2, bert."""
    hidden_size: Width
    num_hidden_layers: Annotated[int, Field(gt=0, le=1000, strict=True), Whole]
    num_attention_heads: Width
    intermediate_size: Width | None = None
    """Width of the feed-forward layer; 4 × hidden_size where it is left out."""
    config: dict[str, bool | int | float | str | None] = {}  # noqa: RUF012  # pydantic copies it
    """Further options of the architecture's transformers configuration class."""

    pretrained: ClassVar[None] = None
    lora: ClassVar[None] = None

    @model_validator(mode="after")
    def _heads_divide_width(self) -> "FromScratch":
        if self.hidden_size % self.num_attention_heads:
            raise PydanticCustomError(
                "heads",
                "hidden_size {hidden_size} must be a multiple of num_attention_heads {heads}",
                {"hidden_size": self.hidden_size, "heads": self.num_attention_heads},
            )
        return self


class Lora(Section):
    """Low-rank adapters: only they, and weights that did not come with the model, are trained.

    Hu et al. 2021 (arXiv:2106.09685). Random weights have nothing to adapt, so a model from
    scratch has none.
    """

    rank: PositiveInt = 8
    """Where the hyperparameter lora_rank is not given."""
    alpha: PositiveFloat = 16.0
    """What is added to a layer is multiplied by alpha / rank."""
    dropout: BelowOne = 0.0
    """Of the adapters' inputs."""
    target_modules: (
        Annotated[tuple[str, ...], Field(min_length=1)] | Literal["all-linear"] | None
    ) = None
    """Layers by the end of their names, as in [q_proj, v_proj]; all-linear: every linear layer but
    the head; null: what peft adapts in this architecture, mostly queries and values."""


class Pretrained(Section):
    """A model with trained weights."""

    pretrained: LocalPath
    """A folder, a name on the Hugging Face hub, or builtin:minilm."""
    lora: Lora | None = None
    """null: all weights are trained."""


MODEL_KINDS: Mapping[str, type[Section]] = {"from_scratch": FromScratch, "pretrained": Pretrained}
"""The two kinds of model by the names that errors have of them."""


def _model_kind(value: Any) -> str:
    if isinstance(value, dict):
        return "pretrained" if "pretrained" in cast("dict[Any, Any]", value) else "from_scratch"
    return "pretrained" if isinstance(value, Pretrained) else "from_scratch"


ModelSpec = Annotated[
    Annotated[FromScratch, Tag("from_scratch")] | Annotated[Pretrained, Tag("pretrained")],
    Discriminator(_model_kind),
]
