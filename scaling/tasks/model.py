"""Models by transformers: from scratch by architecture and size, or with trained weights."""

import difflib
import re
from typing import Any, Literal

import torch
from torch import nn

from scaling.issues import first_line
from scaling.spec import FromScratch, ModelSpec, Pretrained
from scaling.tasks.adapters import add_adapters
from scaling.tasks.sources import DataError, pretrained_folder
from scaling.tasks.tokens import Tokenizer

Head = Literal[
    "causal_lm", "sequence_classification", "token_classification", "question_answering",
    "seq2seq_lm",
]  # fmt: skip

# What architectures call the width of their feed-forward layer.
_FEED_FORWARD_WIDTHS = ("intermediate_size", "n_inner", "hidden_dim", "ffn_dim")
# What encoder-decoders call the sizes of their decoder, which are the encoder's.
_DECODER_SIZES = ("decoder_layers", "num_decoder_layers", "decoder_attention_heads")
_FEED_FORWARD_WIDTHS_OF_TWO = ("encoder_ffn_dim", "decoder_ffn_dim", "d_ff")


def build_model(
    spec: ModelSpec,
    *,
    head: Head,
    tokenizer: Tokenizer,
    max_length: int,
    num_labels: int,
    seed: int,
    dropout: float | None = None,
    lora_rank: int | None = None,
) -> nn.Module:
    """A model in training mode, its random weights drawn from `seed`.

    `dropout` is that of a model from scratch; None keeps the architecture's. `lora_rank` is that of
    a pretrained model's adapters, where it has some; None keeps the study file's.

    Raises:
        DataError: If there is no such architecture, option, folder or name.
    """
    torch.manual_seed(seed)
    if isinstance(spec, Pretrained):
        model, new_weights = _pretrained(spec, head, tokenizer, num_labels)
        if spec.lora is not None:
            rank = lora_rank or spec.lora.rank
            add_adapters(model, spec.lora, rank=rank, new_weights=new_weights, seed=seed)
        return model.train()
    config = model_config(
        spec,
        tokenizer=tokenizer,
        max_length=max_length,
        num_labels=num_labels,
        head=head,
        dropout=dropout,
    )
    try:
        return _auto_class(head).from_config(config).train()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            "workload.model",
            f"cannot build {spec.architecture} with a {head.replace('_', ' ')} head: "
            f"{first_line(error)}",
        ) from error


def model_config(
    spec: FromScratch,
    *,
    tokenizer: Tokenizer,
    max_length: int,
    num_labels: int,
    head: Head,
    dropout: float | None = None,
) -> Any:
    """The transformers configuration of a model from scratch.

    Raises:
        DataError: If the architecture or one of its options does not exist, or it has no dropout
            to set.
    """
    from transformers import AutoConfig

    config_class: Any = type(AutoConfig.for_model(_known_architecture(spec.architecture)))
    names = {*config_class.attribute_map.values(), *vars(config_class())}
    sizes: dict[str, Any] = {
        "hidden_size": spec.hidden_size,
        "num_hidden_layers": spec.num_hidden_layers,
        "num_attention_heads": spec.num_attention_heads,
        "vocab_size": tokenizer.vocab_size,
        "max_position_embeddings": max_length + 2,  # some architectures reserve two positions
        # Right padding behind causal attention needs no mask, and so no id to find it by.
        "pad_token_id": None if head == "causal_lm" else tokenizer.pad_id,
        "bos_token_id": tokenizer.end_id,
        "eos_token_id": tokenizer.end_id,
    }
    width = next((name for name in _FEED_FORWARD_WIDTHS if name in names), None)
    if width is not None:
        sizes[width] = spec.intermediate_size or 4 * spec.hidden_size
    if "head_dim" in names:
        sizes["head_dim"] = spec.hidden_size // spec.num_attention_heads
    if "num_key_value_heads" in names:
        sizes["num_key_value_heads"] = spec.num_attention_heads
    if num_labels:
        sizes["num_labels"] = num_labels
    if head == "seq2seq_lm":
        sizes |= _encoder_decoder_sizes(spec, names)
        sizes["decoder_start_token_id"] = tokenizer.end_id
    if dropout is not None:
        sizes |= dict.fromkeys(_dropout_names(spec.architecture, config_class()), dropout)
    for option in spec.config:
        if option not in names:
            near = difflib.get_close_matches(option, names, n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise DataError(
                f"workload.model.config.{option}", f"{spec.architecture} has no such option{hint}"
            )
    try:
        return config_class(**sizes | spec.config)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DataError(
            "workload.model.config", f"{spec.architecture} refuses its options: {first_line(error)}"
        ) from error


def _encoder_decoder_sizes(spec: FromScratch, names: set[str]) -> dict[str, Any]:
    """The options of an encoder-decoder that make its decoder as large as its encoder."""
    heads, layers = spec.num_attention_heads, spec.num_hidden_layers
    sizes = {
        name: heads if name.endswith("heads") else layers
        for name in _DECODER_SIZES
        if name in names
    }
    width = spec.intermediate_size or 4 * spec.hidden_size
    sizes |= {name: width for name in _FEED_FORWARD_WIDTHS_OF_TWO if name in names}
    if "d_kv" in names:
        sizes["d_kv"] = spec.hidden_size // heads
    # Whoever generates says when to stop; these models would force an end at a given length.
    return sizes | ({"forced_eos_token_id": None} if "forced_eos_token_id" in names else {})


def _dropout_names(architecture: str, config: Any) -> list[str]:
    """What an architecture calls its dropout probabilities, hidden, attention and others.

    One that is None by default falls back to another of them and is set like it.
    """
    names = [
        name
        for name, value in vars(config).items()
        if ("dropout" in name or name.endswith("pdrop"))
        and (value is None or isinstance(value, float | int))
        and not isinstance(value, bool)
    ]
    if not names:
        raise DataError("workload.model.architecture", f"{architecture} has no dropout to set")
    return names


def _known_architecture(name: str) -> str:
    from transformers import CONFIG_MAPPING

    known: list[str] = list(CONFIG_MAPPING.keys())
    if name not in known:
        near = difflib.get_close_matches(name, known, n=3)
        hint = f"; did you mean {' or '.join(near)}?" if near else ", as in llama, gpt2, bert"
        raise DataError(
            "workload.model.architecture", f"transformers has no architecture {name!r}{hint}"
        )
    return name


def _auto_class(head: Head) -> Any:
    import transformers

    match head:
        case "causal_lm":
            return transformers.AutoModelForCausalLM
        case "sequence_classification":
            return transformers.AutoModelForSequenceClassification
        case "token_classification":
            return transformers.AutoModelForTokenClassification
        case "question_answering":
            return transformers.AutoModelForQuestionAnswering
        case "seq2seq_lm":
            return transformers.AutoModelForSeq2SeqLM


def _pretrained(
    spec: Pretrained, head: Head, tokenizer: Tokenizer, num_labels: int
) -> tuple[nn.Module, set[str]]:
    """A trained model, and the names of its weights that are not: a head, mostly."""
    options = {"num_labels": num_labels} if num_labels else {}
    folder = pretrained_folder(spec.pretrained)
    try:
        model, found = _auto_class(head).from_pretrained(
            folder, dtype=torch.float32, ignore_mismatched_sizes=True, output_loading_info=True,
            **options,
        )  # fmt: skip
    except (OSError, ValueError) as error:
        raise DataError(
            "workload.model.pretrained", f"cannot load {spec.pretrained}: {first_line(error)}"
        ) from error
    if num_labels and model.config.pad_token_id is None:
        model.config.pad_token_id = tokenizer.pad_id  # where a decoder's last real token is
    new_weights = {*found["missing_keys"], *(name for name, *_ in found["mismatched_keys"])}
    if not head.endswith("_lm"):
        # A head that was trained was trained for other labels.
        body = {id(weight) for weight in model.base_model.parameters()}
        new_weights |= {name for name, p in model.named_parameters() if id(p) not in body}
    return model, new_weights


def transformer_blocks(model: nn.Module) -> list[nn.Module]:
    """The repeated layers of a transformers model, in order; none for another module."""
    from transformers.modeling_layers import GradientCheckpointingLayer

    return [block for block in model.modules() if isinstance(block, GradientCheckpointingLayer)]


Cut = Literal["colwise", "rowwise"]


def matrices_to_cut(model: nn.Module, num_workers: int) -> dict[str, Cut]:
    """How transformers' plan for this architecture cuts its blocks among workers.

    Embeddings and the head are in some plans too and are left whole here.

    Returns:
        Names of linear layers: `colwise`, each worker computes its share of the outputs;
        `rowwise`, each takes its share of the inputs and the results are summed.

    Raises:
        DataError: If there is no plan, it has a style that is not followed here, or heads or
            widths cannot be cut into equal parts.
    """
    plan: dict[str, str] = getattr(model, "tp_plan", None) or {}
    blocks = {id(module) for block in transformer_blocks(model) for module in block.modules()}
    cuts: dict[str, Cut] = {}
    for name, module in model.named_modules():
        style = plan.get(re.sub(r"\.\d+(?=\.|$)", ".*", name))
        if style is None or id(module) not in blocks:
            continue
        if style not in ("colwise", "rowwise") or not isinstance(module, nn.Linear):
            what = f"{name}, a {type(module).__name__}, is {style}"
            raise DataError("resources.strategy", f"tp cannot follow this model's plan: {what}")
        cuts[name] = style
    if not cuts:
        kind = getattr(getattr(model, "config", None), "model_type", type(model).__name__)
        raise DataError(
            "resources.strategy", f"tp needs a plan, and transformers has none of {kind}"
        )
    _require_equal_parts(model, cuts, num_workers)
    return cuts


def _require_equal_parts(model: nn.Module, cuts: dict[str, Cut], num_workers: int) -> None:
    config: Any = model.config
    for option in ("num_attention_heads", "num_key_value_heads"):
        count = getattr(config, option, None)
        if count is not None and count % num_workers:
            raise DataError(
                "resources.num_workers",
                f"strategy tp cannot cut the model's {option} ({count}) into {num_workers} parts",
            )
    for name, cut in cuts.items():
        weight: Any = model.get_submodule(name).weight
        size = weight.shape[0 if cut == "colwise" else 1]
        if size % num_workers:
            raise DataError(
                "resources.num_workers",
                f"strategy tp cannot cut {name} ({size} wide) into {num_workers} parts",
            )
