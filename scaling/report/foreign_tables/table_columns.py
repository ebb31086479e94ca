"""What the columns that are not read look like: compared, a budget, searched, or neither."""

import re
from typing import Literal

from scaling.report.foreign_tables.table_names import CONFIG_PREFIXES, plain, unprefixed
from scaling.report.foreign_tables.table_suggestions import is_rate, is_score

Kind = Literal["compared", "budget", "setting", "unknown", "file", "label", "passed_over"]
"""What is compared, as a model; how long was trained; another hyperparameter; what no name tells;
a file, which may be of a model or data set; where or under which label it ran; measurements, times
and identifiers, which always vary."""

_COMPARED_WORDS = frozenset(
    {
        "model", "arch", "architecture", "backbone", "optimizer", "optim", "dataset", "datasets",
        "corpus", "task", "benchmark", "tokenizer", "schedule", "scheduler", "experiment",
        "project", "variant", "method", "algorithm", "algo", "condition", "treatment", "arm",
        "family", "objective",
    }
)  # fmt: skip
_COMPARED = frozenset(
    {
        "n", "params", "parameters", "num_params", "n_params", "nparams", "num_parameters",
        "n_parameters", "size", "model_size", "scale", "width", "depth", "d_model", "dim",
        "hidden_size", "hidden_dim", "n_embd", "n_layer", "n_layers", "num_layers", "layers",
        "num_hidden_layers", "n_head", "n_heads", "num_heads", "heads", "num_attention_heads",
        "vocab_size", "seq_len", "seq_length", "sequence_length", "context_length", "context",
        "block_size", "max_seq_len", "max_seq_length", "data", "data_source", "language", "lang",
        "loss_type", "loss_function", "pretrained", "num_classes",
    }
)  # fmt: skip
_BUDGETS = frozenset(
    {
        "steps", "max_steps", "num_steps", "n_steps", "total_steps", "train_steps",
        "training_steps", "num_train_steps", "num_training_steps", "iterations", "iters",
        "max_iters", "num_iterations", "epochs", "num_epochs", "max_epochs", "n_epochs",
        "num_train_epochs", "total_epochs", "train_epochs", "budget", "tokens", "num_tokens",
        "n_tokens", "train_tokens", "total_tokens", "training_tokens", "token_budget", "d",
        "examples", "num_examples", "samples", "num_samples", "train_examples", "train_samples",
        "horizon", "flops", "train_flops", "total_flops", "compute", "num_train", "train_size",
        "dataset_size", "num_updates", "updates", "max_updates", "duration_steps",
    }
)  # fmt: skip
_SETTING_WORDS = frozenset(
    {
        "decay", "wd", "beta", "betas", "beta1", "beta2", "momentum", "eps", "epsilon", "dropout",
        "warmup", "clip", "clipping", "smoothing", "nesterov", "ema", "gamma", "lambda", "rho",
        "init", "std", "rank", "alpha", "reg", "regularization", "l1", "l2", "ratio",
        "temperature", "augmentation", "mixup",
    }
)  # fmt: skip
_LABEL_WORDS = frozenset(
    {
        "group", "sweep", "gpu", "gpus", "device", "devices", "accelerator", "machine",
        "cluster", "partition", "region", "backend", "precision", "dtype", "workers", "world",
        "accumulation", "accumulate", "accum", "micro", "per", "processes", "nodes", "strategy",
        "cores", "threads", "log", "logging", "interval", "every", "frequency", "debug", "verbose",
        "resume", "compile", "batch", "batches", "prefetch",
    }
)  # fmt: skip
_IDENTIFIER_WORDS = frozenset(
    {
        "seed", "id", "uid", "uuid", "name", "number", "index", "notes", "note", "user", "author",
        "tags", "created", "updated", "started", "start", "end", "ended", "finished", "date",
        "datetime", "timestamp", "host", "hostname", "pid", "node", "ip", "url", "uri", "path",
        "dir", "directory", "folder", "file", "commit", "git", "version", "runtime", "duration",
        "state", "status", "source", "artifact", "comment", "comments", "lifecycle", "logdir",
        "checkpoint", "run", "trial", "unnamed", "parent", "hash", "sha", "done", "experiment_tag",
    }
)  # fmt: skip
_MEASURED_WORDS = frozenset(
    {
        "loss", "losses", "error", "err", "nll", "ppl", "perplexity", "bpb", "bpc", "metric",
        "metrics", "time", "times", "seconds", "secs", "sec", "hours", "minutes", "elapsed",
        "throughput", "speed", "mfu", "memory", "mem", "gb", "mib", "grad", "gradient", "norm",
        "gnorm", "mse", "mae", "rmse", "gap", "sharpness", "noise", "cost", "energy", "power",
        "epoch", "step", "iteration", "progress", "precision_score", "wer", "cer", "entropy",
        "confidence", "utilization", "util", "entity",
    }
)  # fmt: skip
_SCHEDULER_WORDS = frozenset({"array", "job", "slurm"})
"""Of a cluster's jobs, which number their tasks."""
_FILE_WORDS = frozenset({"file", "checkpoint"})
_NAMING_WORDS = _FILE_WORDS | frozenset(
    {"name", "id", "number", "index", "path", "dir", "directory", "folder", "version", "source",
     "artifact", "url", "uri"}
)  # fmt: skip
"""Identifiers that may as well be of a model or data set."""
_MEASURED_STARTS = (
    "train_", "val_", "valid_", "validation_", "eval_", "test_", "dev_", "best_", "final_",
    "last_", "min_val", "max_val",
)  # fmt: skip
_KEPT_WORDS = frozenset(
    {"output", "log", "logs", "logging", "save", "cache", "local", "resume", "tensorboard",
     "checkpoint", "checkpoints"}
)  # fmt: skip
_FOLDER_WORDS = frozenset({"dir", "directory", "folder"})
_KEPT = frozenset(
    {"hub_model_id", "resume_from_checkpoint", "output_path", "log_path", "logging_path",
     "save_path", "cache_path", "local_path", "tensorboard_path"}
)  # fmt: skip
"""Where a run keeps what it writes, with the folders of `_KEPT_WORDS`."""
_HOUSEKEEPING = frozenset(
    {
        "eval_steps", "eval_every", "eval_interval", "eval_freq", "eval_frequency", "eval_strategy",
        "eval_delay", "eval_accumulation_steps", "eval_batch_size", "val_batch_size",
        "test_batch_size", "per_device_eval_batch_size", "val_check_interval", "val_interval",
        "val_every", "check_val_every_n_epoch", "log_every_n_steps", "logging_steps", "save_steps",
        "save_every", "save_interval", "save_freq", "save_strategy", "save_total_limit",
        "save_top_k", "checkpoint_every", "push_to_hub", "time_limit",
    }
)  # fmt: skip
"""How often is evaluated, logged or saved: changes neither the training nor what is measured."""
_ONLY_A_LEAF = frozenset({"name", "type", "kind", "class", "target", "name_or_path"})
"""Last parts that say nothing without the part before, as in optimizer.name."""


def kind_of(name: str) -> Kind:
    """What a column is by its name alone."""
    whole = plain(name)
    if not whole:
        return "passed_over"
    parts = [plain(part) for part in re.split(r"[./]", unprefixed(name)) if plain(part)]
    leaf = parts[-1] if parts else whole
    if leaf in _ONLY_A_LEAF and len(parts) > 1:
        leaf = f"{parts[-2]}_{leaf}"
    words, has_config = set(leaf.split("_")), name.startswith(CONFIG_PREFIXES)
    if "seed" in words or name.startswith(("metrics.", "summary.", "_")):
        return "passed_over"
    if leaf in _BUDGETS:
        return "budget"
    if leaf in _COMPARED:
        return "compared"
    if words & _SETTING_WORDS and not whole.startswith(("val_", "eval_", "test_")):
        return "setting"
    if has_config and leaf in _HOUSEKEEPING:
        return "label"
    if words & _SCHEDULER_WORDS:
        return "passed_over"
    if leaf in _KEPT or (words & _KEPT_WORDS and words & _FOLDER_WORDS):
        return "passed_over"
    if words & _COMPARED_WORDS and not words & {"time", "url", "tag"}:
        return "compared"
    identifiers = words & _IDENTIFIER_WORDS
    if identifiers and not (has_config and identifiers <= _NAMING_WORDS):
        return "file" if identifiers <= _FILE_WORDS else "passed_over"
    if is_score(name) or words & _MEASURED_WORDS or whole.startswith(_MEASURED_STARTS):
        if not has_config:
            return "passed_over"
        return "unknown"  # config.norm is no measure
    if identifiers:
        return "unknown"
    if is_rate(name) or (words & _LABEL_WORDS and "limit" not in words):
        return "label"
    return "setting" if has_config else "unknown"
