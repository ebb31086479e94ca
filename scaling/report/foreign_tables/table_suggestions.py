"""What others call our columns: only ever suggested, never taken."""

import difflib
import re
import statistics
from collections.abc import Mapping, Sequence

from scaling.report.foreign_tables.table_names import TableError, listed, plain

_SYNONYMS: Mapping[str, tuple[str, ...]] = {
    "global_batch_size": (
        "global_batch", "total_batch_size", "effective_batch_size", "total_train_batch_size",
        "train_batch_size", "batch_size", "batchsize", "batch", "bs", "b", "bsz", "mbs",
        "examples_per_step", "sequences_per_step",
    ),
    "peak_lr": (
        "max_lr", "peak_learning_rate", "max_learning_rate", "learning_rate", "learningrate",
        "base_lr", "initial_lr", "init_lr", "lr", "eta", "step_size",
    ),
    "validation_loss": (
        "val_loss", "valid_loss", "eval_loss", "dev_loss", "held_out_loss", "heldout_loss",
        "best_val_loss", "best_valid_loss", "best_eval_loss", "best_validation_loss",
        "final_val_loss", "final_eval_loss", "final_validation_loss", "final_loss", "best_loss",
        "smooth_loss", "validation", "loss", "nll", "val_nll", "eval_nll", "val_ppl", "valid_ppl",
        "eval_ppl", "val_perplexity", "eval_perplexity", "perplexity", "ppl", "val_bpb",
        "val_error", "valid_error", "eval_error", "error_rate", "objective", "value",
    ),
    "steps_to_target": ("steps_to_loss", "steps_to_reach", "num_steps_to_target", "steps"),
}  # fmt: skip

_EITHER_WAY = frozenset({"objective", "value", "metric", "objective_value", "final_objective"})
"""Names that do not say whether less or more is better."""

_SCORES = frozenset(
    {
        "acc", "accuracy", "top1", "top5", "auc", "auroc", "auprc", "roc", "f1", "fscore", "bleu",
        "sacrebleu", "rouge", "rouge1", "rouge2", "rougel", "rougelsum", "meteor", "chrf", "em",
        "exact", "map", "map50", "ndcg", "mrr", "mcc", "matthews", "r2", "recall", "iou", "miou",
        "dice", "psnr", "ssim", "reward", "rewards", "return", "returns", "score", "winrate",
        "correct", "kappa", "spearman", "pearson", "spearmanr", "pearsonr", "bertscore", "comet",
        "cider", "elo", "mfu", "hits", "pass",
    }
)  # fmt: skip
_LESS_IS_BETTER = frozenset({"loss", "error", "err", "nll", "ppl", "perplexity", "wer", "cer"})

_HELD_OUT = frozenset({"val", "valid", "validation", "eval", "dev", "test", "heldout"})

_PER_DEVICE = (
    "per_device_train_batch_size", "per_device_batch_size", "per_gpu_train_batch_size",
    "per_gpu_batch_size", "batch_size_per_gpu", "batch_size_per_device", "device_batch_size",
    "local_batch_size", "micro_batch_size", "microbatch_size", "train_micro_batch_size_per_gpu",
    "batch_size", "train_batch_size", "batch", "bs",
)  # fmt: skip
_ACCUMULATION = (
    "gradient_accumulation_steps", "grad_accumulation_steps", "accumulate_grad_batches",
    "grad_accum_steps", "grad_accum", "accumulation_steps", "gradient_accumulation", "accum_steps",
    "update_freq",
)  # fmt: skip
_DEVICES = (
    "world_size", "num_devices", "n_devices", "devices", "num_gpus", "n_gpus", "n_gpu", "gpus",
    "num_processes", "num_workers_ddp", "data_parallel_size", "dp_size", "ngpus",
)  # fmt: skip
_PROGRESS = frozenset({"epoch", "step", "global_step", "iteration", "training_iteration"})


def is_score(name: str) -> bool:
    """Whether more of what a column is called is better, as for an accuracy."""
    words = set(plain(name).split("_"))
    return bool(words & _SCORES) and not words & _LESS_IS_BETTER


def is_rate(name: str) -> bool:
    """Whether a column is called as a learning rate is."""
    return _leaf(name) in _SYNONYMS["peak_lr"] or _leaf(name) == "peak_lr"


def product_of_batch(header: Sequence[str], batch: str | None = None) -> str | None:
    """The columns whose product is the global batch, where a table has it in parts."""
    by_name = {_leaf(name): name for name in reversed(header)}
    parts = [
        next((by_name[name] for name in names if name in by_name), None)
        for names in (_PER_DEVICE, _ACCUMULATION, _DEVICES)
    ]
    if batch is not None:
        parts[0] = batch if _leaf(batch) in _PER_DEVICE else None
    first, accumulation, devices = parts
    is_per_device = first is not None and "per_" in _leaf(first)
    if first is None or not (accumulation or (is_per_device and devices)):
        return None
    return "*".join(part for part in (first, accumulation, devices) if part)


def missing_columns(
    file: str, missing: Sequence[str], header: Sequence[str], rows: Sequence[Sequence[str]]
) -> TableError:
    """The error for columns that a table lacks, with a renaming to try where one looks right.

    Args:
        file: The table's name.
        missing: Our names.
        header: The table's columns.
        rows: Some of its rows, which tell a peak rate from a schedule's last value.
    """
    hints = suggestions(missing, header, rows)
    is_score = any(hint.startswith("--maximize") for hint in hints)
    help_ = f"did you mean {' '.join(hints)}?" if hints else "--rename THEIRS=OURS names a column"
    if "validation_loss" in missing and any(_either_way(hint) for hint in hints):
        value = next(hint for hint in hints if _either_way(hint)).split("=")[0].split(" ", 1)[1]
        help_ += f" Where a larger value is better: --maximize {value}"
        is_score = True
    if "global_batch_size" in missing:
        help_ += _devices_missing(header)
    if len(header) == 1:
        is_score = False
        help_ = "the cells of a table are separated by commas, semicolons or tabs"
    leaves = {_leaf(name) for name in header}
    is_log = {"global_batch_size", "peak_lr"} <= set(missing) and leaves & _PROGRESS
    if is_log and len(hints) < len(missing):  # an export of W&B has `_step` in any case
        help_ += (
            "; is this the log of one run? A sweep has one row per run, with its batch size, "
            "peak learning rate and final loss"
        )
    return TableError(
        f"{file}: line 1 (header): missing column {listed(missing)}; there are {listed(header)} "
        f"({help_})", offers=["--maximize"] * is_score,
    )  # fmt: skip


def suggestions(
    missing: Sequence[str], header: Sequence[str], rows: Sequence[Sequence[str]]
) -> list[str]:
    """An option for each of our names for which a column looks right."""
    return [hint for ours in missing if (hint := _suggestion(ours, header, rows))]


def _devices_missing(header: Sequence[str]) -> str:
    """What a batch per device still needs where no column has the number of devices."""
    product = product_of_batch(header)
    first = next((n for n in header if _leaf(n) in _PER_DEVICE and "per_" in _leaf(n)), None)
    if first is None or {_leaf(name) for name in header} & {*_DEVICES}:
        return ""
    return (
        f"; a run on several devices needs their number as well, here 8: "
        f"{option('--rename', f'{product or first}*8=global_batch_size')}"
    )


def _suggestion(ours: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    if ours == "global_batch_size" and (product := product_of_batch(header)):
        return option("--rename", f"{product}={ours}")
    found = _candidates(ours, header)
    if ours == "peak_lr" and len(found) > 1:
        found.sort(key=lambda name: -_typical(header.index(name), rows))
    if found:
        return option("--rename", f"{found[0]}={ours}")
    if ours == "validation_loss":
        scores = [name for name in header if is_score(name)]
        held_out = [name for name in scores if _HELD_OUT & set(plain(name).split("_"))]
        if scores:
            return option("--maximize", (held_out or scores)[0])
    plains = {plain(name): name for name in reversed(header)}
    close = difflib.get_close_matches(ours, list(plains), n=1, cutoff=0.75)
    return option("--rename", f"{plains[close[0]]}={ours}") if close else ""


def _candidates(ours: str, header: Sequence[str]) -> list[str]:
    """Columns with a name for it, the likeliest first, a setting before what was logged."""
    found: list[tuple[bool, int, str]] = []
    synonyms = _SYNONYMS.get(ours, ())
    for name in header:
        if ours == "validation_loss" and "train" in plain(name).split("_"):
            continue
        for known in (plain(name), _leaf(name)):
            if known in synonyms:
                is_logged = ours != "validation_loss" and plain(name).startswith(
                    ("train_", "metrics_")
                ) and known != plain(name)  # fmt: skip
                found.append((is_logged, synonyms.index(known), name))
                break
        else:
            words = set(plain(name).split("_"))
            if ours == "validation_loss" and "loss" in words and words & _HELD_OUT:
                found.append((True, len(synonyms), name))
    return [name for *_, name in sorted(found, key=lambda entry: entry[:2])]


def _typical(place: int, rows: Sequence[Sequence[str]]) -> float:
    values: list[float] = []
    for row in rows:
        try:
            values.append(float(row[place]))
        except (ValueError, IndexError):
            continue
    return statistics.median(values) if values else 0.0


def _leaf(name: str) -> str:
    """The last part of a name that an export put together, as in config/train_loop_config/lr."""
    parts = [part for part in re.split(r"[./]", name) if part.strip()]
    last = plain(parts[-1]) if parts else ""
    for prefix in ("params_", "user_attrs_", "hparams_", "hp_", "param_"):
        last = last.removeprefix(prefix)
    return last


def _either_way(hint: str) -> bool:
    return any(hint.endswith(f"{name}=validation_loss") for name in _EITHER_WAY)


def option(name: str, argument: str) -> str:
    """An option as a shell takes it."""
    quoted = re.search(r"[^\w./=-]", argument) is not None
    return f'{name} "{argument}"' if quoted else f"{name} {argument}"
