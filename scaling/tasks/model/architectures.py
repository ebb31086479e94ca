"""Models by transformers: from scratch by architecture and size, or with trained weights."""

from typing import Any, Literal

import torch
from torch import nn

from scaling.process import without_garbage_collection
from scaling.spec.issues import did_you_mean
from scaling.spec.models import FromScratch, ModelSpec, Pretrained
from scaling.tasks.data.tokens import Tokenizer
from scaling.tasks.errors import DataError
from scaling.tasks.extras import pretrained_folder
from scaling.tasks.loading import library_errors, require_no_custom_code
from scaling.tasks.model.adapters import add_adapters
from scaling.tasks.padding import padded_vocabulary

Head = Literal[
    "causal_lm", "sequence_classification", "token_classification", "question_answering",
    "seq2seq_lm",
]  # fmt: skip

# What architectures call the width of their feed-forward layer.
_FEED_FORWARD_WIDTHS = ("intermediate_size", "n_inner", "hidden_dim", "ffn_dim")

# What encoder-decoders call the sizes of their decoder, which are the encoder's.
_DECODER_SIZES = (
    "decoder_layers", "num_decoder_layers", "decoder_attention_heads",
    "num_decoder_attention_heads",
)  # fmt: skip

_FEED_FORWARD_WIDTHS_OF_TWO = ("encoder_ffn_dim", "decoder_ffn_dim", "d_ff")
_NUM_LAYERS = ("num_hidden_layers", "num_encoder_layers")

# What a model from scratch may have beside what its sizes say: experts, mostly.
MAX_NUM_PARAMETERS = 10**8
MAX_TIMES_ITS_SIZES = 16


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
    if spec.pretrained is not None:
        torch.manual_seed(seed)
        model, new_weights = _pretrained(spec, head, tokenizer, num_labels)
        if spec.lora is not None:
            rank = lora_rank or spec.lora.rank
            add_adapters(model, spec.lora, rank=rank, new_weights=new_weights, seed=seed)
        return model.train()
    with without_garbage_collection():  # imports the architecture
        config = model_config(
            spec, tokenizer=tokenizer, max_length=max_length, num_labels=num_labels, head=head,
            dropout=dropout,
        )  # fmt: skip
    what = f"cannot build {spec.architecture} with a {head.replace('_', ' ')} head"
    with library_errors("workload.model", what):
        with without_garbage_collection(), torch.device("meta"):
            sketch = _auto_class(head).from_config(config, trust_remote_code=False)
        _require_size(sketch, spec, tokenizer.vocab_size, max_length)
        torch.manual_seed(seed)
        return _auto_class(head).from_config(config, trust_remote_code=False).train()


def _require_size(sketch: nn.Module, spec: FromScratch, vocab_size: int, max_length: int) -> None:
    """Check on a model without storage that it is about as large as its sizes say.

    An architecture's other options, the number of its experts or a second tower, have defaults
    that are those of a published model.
    """
    width = spec.hidden_size
    feed_forward = spec.intermediate_size or 4 * width
    block = 4 * width * width + 3 * width * feed_forward
    asked = 2 * spec.num_hidden_layers * block + (2 * vocab_size + max_length) * width
    tensors = [*sketch.parameters(), *sketch.buffers()]
    built = sum(tensor.numel() for tensor in tensors)
    if built > max(MAX_NUM_PARAMETERS, MAX_TIMES_ITS_SIZES * asked):
        raise DataError(
            "workload.model.architecture",
            f"{spec.architecture} has {built:,} weights at these sizes, a plain Transformer at "
            f"most {asked:,}; set its other options in workload.model.config",
        )


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

    architecture = _known_architecture(spec.architecture)
    with library_errors("workload.model.architecture", f"{architecture} cannot be configured"):
        defaults: Any = AutoConfig.for_model(architecture)
    config_class: Any = type(defaults)
    names = {*config_class.attribute_map.values(), *vars(defaults)}
    _require_head(config_class, head, architecture)
    _require_sizes(config_class, names, architecture)
    sizes: dict[str, Any] = {
        "hidden_size": spec.hidden_size,
        "num_hidden_layers": spec.num_hidden_layers,
        "num_attention_heads": spec.num_attention_heads,
        "vocab_size": padded_vocabulary(tokenizer.vocab_size),
        "max_position_embeddings": max_length + 2,  # some architectures reserve two positions
        "pad_token_id": tokenizer.pad_id,
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
    if head == "causal_lm" and "is_decoder" in names:
        sizes["is_decoder"] = True  # an encoder reads its own text from the left alone
    elif head == "causal_lm":
        # Right padding behind causal attention needs no mask, and so no id to find it by.
        sizes["pad_token_id"] = None
    known = names | config_class.attribute_map.keys()
    for name in ("max_position_embeddings", "num_hidden_layers"):
        if name not in known:  # some would raise, and some of these compute it from others
            del sizes[name]
    if head == "seq2seq_lm" or defaults.is_encoder_decoder:
        sizes |= _encoder_decoder_sizes(spec, names)
        sizes["decoder_start_token_id"] = tokenizer.end_id
    if dropout is not None:
        sizes |= dict.fromkeys(_dropout_names(architecture, defaults), dropout)
    for option in spec.config:
        if option not in names:
            hint = did_you_mean(option, names)
            raise DataError(
                f"workload.model.config.{option}", f"{architecture} has no such option{hint}"
            )
    # By the names that options have, so that one given is not overruled under its other name.
    options = {config_class.attribute_map.get(name, name): value for name, value in sizes.items()}
    with library_errors("workload.model.config", f"{architecture} refuses its options"):
        return config_class(**options | spec.config)


def _require_head(
    config_class: Any, head: Head, architecture: str, path: str = "workload.model"
) -> None:
    if config_class not in _auto_class(head)._model_mapping:
        raise DataError(
            path, f"transformers has no {architecture} with a {head.replace('_', ' ')} head"
        )


def _require_sizes(config_class: Any, names: set[str], architecture: str) -> None:
    """Check that the model can be as wide and as deep as asked."""
    known = names | config_class.attribute_map.keys()
    missing = [] if "hidden_size" in known else ["hidden_size"]
    if not known.intersection(_NUM_LAYERS):
        missing.append("num_hidden_layers")
    if missing:
        parts = [name for name in sorted(names) if name.endswith("_config")]
        raise DataError(
            "workload.model.architecture",
            f"{architecture} has no option {' nor '.join(missing)}"
            f"{', but ' if parts else ''}{', '.join(parts)}",
        )


def _encoder_decoder_sizes(spec: FromScratch, names: set[str]) -> dict[str, Any]:
    """The options of an encoder-decoder that make its decoder as large as its encoder."""
    heads, layers = spec.num_attention_heads, spec.num_hidden_layers
    sizes = {
        name: heads if name.endswith("heads") else layers
        for name in _DECODER_SIZES
        if name in names
    }
    width = spec.intermediate_size or 4 * spec.hidden_size
    if "num_encoder_layers" in names:
        sizes["num_encoder_layers"] = layers
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
        hint = did_you_mean(name, known) or ", as in llama, gpt2, bert"
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
    from transformers import AutoConfig

    folder = pretrained_folder(spec.pretrained)
    path = "workload.model.pretrained"
    require_no_custom_code(folder, spec.pretrained, path)
    with library_errors(path, f"cannot load {spec.pretrained}"):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        _require_head(type(config), head, config.model_type, path)
        if head == "causal_lm" and hasattr(config, "is_decoder"):
            config.is_decoder = True  # an encoder reads its own text from the left alone
        if num_labels:
            config.num_labels = num_labels
        model, found = _auto_class(head).from_pretrained(
            folder, config=config, dtype=torch.float32, ignore_mismatched_sizes=True,
            output_loading_info=True, trust_remote_code=False,
        )  # fmt: skip
    if num_labels:
        model.config.pad_token_id = tokenizer.pad_id  # where a decoder's last real token is
    new_weights = {*found["missing_keys"], *(name for name, *_ in found["mismatched_keys"])}
    if not head.endswith("_lm"):
        # A head that was trained was trained for other labels.
        body = {id(weight) for weight in model.base_model.parameters()}
        new_weights |= {name for name, p in model.named_parameters() if id(p) not in body}
    return model, new_weights
