"""Spreadsheets of several locales, mixed tables, odd seeds: with planted answers."""

import json
from collections.abc import Callable
from typing import Any

from planted_tables import (
    ANSWER,
    BATCHES,
    BEST_BATCH,
    CRITICAL,
    RATES,
    Answer,
    Planted,
    Refusal,
    Run,
    best_rate,
    hints,
    loss_at,
    lowest,
    rename,
    runs,
    steps_at,
    text,
)

# --- spreadsheets --------------------------------------------------------------------------------

_HEADER = ("global_batch_size", "peak_lr", "validation_loss", "train_loss", "seconds")
_ROUND = (500, 1000, 2000, 4000)


def _sheet(
    write: Callable[[float, int], str], separator: str, encoding: str = "utf-8", end: str = "\r\n"
) -> bytes:
    """`write(value, decimals)` is how the locale writes a number."""
    rows = [
        dict(zip(_HEADER, (write(r.batch, 0), write(r.rate, 6), write(r.loss, 4),
                           write(r.loss - 0.1, 4), write(1000 + r.number, 1)), strict=True))
        for r in runs(batches=_ROUND)
    ]  # fmt: skip
    return text(rows, separator=separator, encoding=encoding, end=end)


def _english(value: float, decimals: int) -> str:
    return f"{value:,.{decimals}f}"


def _marks(thousands: str, decimal: str) -> Callable[[float, int], str]:
    def write(value: float, decimals: int) -> str:
        return _english(value, decimals).replace(",", "T").replace(".", decimal).replace(
            "T", thousands
        )  # fmt: skip

    return write


def sheets() -> list[Planted]:
    """Spreadsheets of several locales."""
    whole = Answer(
        cells={batch: best_rate(batch) for batch in _ROUND},
        losses={batch: lowest(batch) for batch in _ROUND},
        batch=500,
        num_trials=36,
    )
    dresses = {
        "english, commas between thousands": _sheet(_english, ","),
        "german, points between thousands": _sheet(_marks(".", ","), ";"),
        "german, tabs, utf-16": _sheet(_marks(".", ","), "\t", "utf-16"),
        "french, narrow spaces": _sheet(_marks("\u202f", ","), ";", "utf-8-sig"),
        "french, no-break spaces": _sheet(_marks("\u00a0", ","), ";"),
        "swiss, apostrophes": _sheet(_marks("’", "."), ";"),
    }  # fmt: skip
    counts = [
        {"global_batch_size": b, "steps_to_target": _marks(".", ",")(steps_at(b), 0)}
        for b in (64, 128, 256, 512)
    ]
    timed = [
        {"global_batch_size": r.batch, "peak_lr": r.rate, "validation_loss": r.loss,
         "seconds": f"{80 + r.number / 4} sec"}
        for r in runs()
    ]  # fmt: skip
    return [
        *(Planted(f"sheet, {name}", "sheet.csv", content, (((), whole),))
          for name, content in dresses.items()),
        Planted(
            "sheet, german counts alone", "steps.csv", text(counts, separator=";"),
            (((), Refusal(("steps_to_target", "thousands"))),),
        ),
        Planted("sheet, seconds with a unit", "times.csv", text(timed), (((), ANSWER),)),
        Planted(
            "sheet, xlsx", "sweep.xlsx", b"PK\x03\x04" + bytes(200),
            (((), Refusal(("CSV",))),),
        ),
    ]  # fmt: skip


# --- what a table mixes, seeds and sizes ---------------------------------------------------------


def _ours(run: Run, **more: Any) -> dict[str, Any]:
    return {
        "global_batch_size": run.batch, "peak_lr": run.rate, "validation_loss": run.loss,
    } | more  # fmt: skip


def mixed() -> list[Planted]:
    """Tables that pool what must not be pooled."""
    sizes = [
        {"model": model, "global_batch_size": batch, "steps_to_target": round(steps)}
        for model, critical, least in (("85M", 700.0, 500.0), ("1B", 2800.0, 800.0))
        for batch in (64, 128, 256, 512, 1024)
        for steps in (steps_at(batch, critical, least),)
    ]
    budgets = [
        _ours(r, steps=steps, seed=0, validation_loss=r.loss + extra)
        for steps, extra in ((1000, 0.4), (4000, 0.0))
        for r in runs()
    ]
    both = [
        _ours(r, optimizer=name, params=millions, validation_loss=r.loss + extra)
        for name, millions, extra in (("adamw", 85, 0.0), ("lion", 85, 0.2), ("lion", 302, -0.4))
        for r in runs()
    ]
    data = [
        _ours(r, dataset=name, validation_loss=r.loss + extra)
        for name, extra in (("c4", 0.0), ("wikitext", 0.7))
        for r in runs()
    ]
    planted = Answer(critical=CRITICAL)
    return [
        Planted(
            "two models, steps to target", "steps.csv", text(sizes),
            (((), Refusal(("'model'", "--where model=", "--cell model"))),
             (("--where", "model=85M"), planted)),
        ),
        Planted(
            "two budgets", "budgets.csv", text(budgets),
            (((), Refusal(("'steps'", "--where steps=", "--cell steps"))),
             (("--where", "steps=4000"), ANSWER)),
        ),
        Planted(
            "two optimizers and two sizes", "both.csv", text(both),
            (((), Refusal(("'optimizer'", "'params'", "--where", "--cell"))),
             (("--where", "optimizer=lion"), Refusal(("'params'", "--where params="))),
             (("--where", "optimizer=adamw"), ANSWER),
             (("--where", "optimizer=lion", "params=85"),
              Answer(ANSWER.cells, batch=BEST_BATCH))),
        ),
        Planted(
            "two data sets", "data.csv", text(data),
            (((), Refusal(("'dataset'", "--where dataset=", "--cell dataset"))),
             (("--where", "dataset=c4"), ANSWER)),
        ),
        Planted(
            "devices go with the batch", "devices.csv",
            text(_ours(r, num_gpus=r.batch // 32, steps=r.steps) for r in runs()),
            (((), ANSWER),),
        ),
    ]  # fmt: skip


def replicates() -> list[Planted]:
    """Seeds that are unstable or stuck, and none at all."""
    unstable, stuck = runs(num_seeds=3, noise=0.004), runs(num_seeds=3, noise=0.004)
    for run in unstable:
        if run.rate == RATES[-1]:
            run.loss = (3.1, 5.6, 8.9)[run.seed]
    for run in stuck:
        if run.batch == BEST_BATCH and run.rate == RATES[5] and run.seed == 1:
            run.loss = 10.8
    many = [
        _ours(r, seed=r.seed, peak_lr=r.rate * 1.00001**place)
        for place in range(80)
        for r in runs(num_seeds=2, batches=(64, 128, 256))
    ]
    bounded = {f"cells.{place}.best_peak_lr_interval": "bounded" for place in range(len(BATCHES))}
    return [
        Planted(
            "a rate that is unstable", "unstable.csv",
            text(_ours(r, seed=r.seed) for r in unstable),
            (((), Answer(ANSWER.cells, ANSWER.losses, batch=BEST_BATCH,
                         known={**bounded, "lr_scaling.interval": "bounded"})),),
        ),
        Planted(
            "a seed at its initial loss", "stuck.csv", text(_ours(r, seed=r.seed) for r in stuck),
            (((), Answer(ANSWER.cells, ANSWER.losses, batch=BEST_BATCH,
                         known={**bounded, "num_failed": 1}, says=("10.8",))),),
        ),
        Planted(
            "no seeds", "bare.csv", text(_ours(r) for r in runs()),
            (((), Answer(ANSWER.cells, ANSWER.losses, batch=BEST_BATCH,
                         says_not=("paired seeds",))),),
        ),
        Planted(
            "1,440 rows a cell", "many.csv", text(many),
            (((), Answer({b: best_rate(b) for b in (64, 128, 256)}, batch=BEST_BATCH)),),
        ),
    ]  # fmt: skip


def others() -> list[Planted]:
    """JSON records, scores of other names, a curve with a target."""
    records = [{"config": {"lr": r.rate, "bs": r.batch}, "best_val_loss": r.loss} for r in runs()]
    theirs = {
        "global_batch_size": "config.bs",
        "peak_lr": "config.lr",
        "validation_loss": "best_val_loss",
    }
    bleu = [
        {"global_batch_size": r.batch, "peak_lr": r.rate, "BLEU": 100 * r.accuracy - 50}
        for r in runs()
    ]
    curves = [
        {
            "run_id": f"r{r.number}", "global_batch_size": r.batch, "peak_lr": r.rate,
            "step": round(share * 4 * steps_at(r.batch)),
            "validation_loss": loss_at(r.batch, r.rate) + 1.0 / (4 * share) ** 2,
        }
        for r in runs()
        for share in (0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.6, 0.8, 1.0)
    ]  # fmt: skip
    return [
        Planted(
            "json records", "records.json", json.dumps(records).encode(),
            (((), Refusal(hints(**theirs))), (rename(**theirs), ANSWER)),
        ),
        Planted(
            "bleu beside nothing", "bleu.csv", text(bleu),
            (((), Refusal(("--maximize BLEU",))),
             (("--maximize", "BLEU"), Answer(ANSWER.cells, batch=BEST_BATCH,
                                             metrics={"BLEU": {128: 40.0}}))),
        ),
        Planted(
            "curves", "curves.csv", text(curves),
            (((), Answer(ANSWER.cells, num_trials=45, says=("one row per evaluation",))),),
        ),
    ]  # fmt: skip


def plain_tables() -> list[Planted]:
    """All of them."""
    return [*sheets(), *mixed(), *replicates(), *others()]
