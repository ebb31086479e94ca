"""What trackers, tuners and trainers export, with planted answers."""

import json
import math
import random
from typing import Any

from planted_tables import (
    ANSWER,
    BATCHES,
    BEST_BATCH,
    Answer,
    Planted,
    Refusal,
    Run,
    hints,
    loss_at,
    lowest,
    rename,
    runs,
    text,
)

# --- Weights & Biases ----------------------------------------------------------------------------


def _wandb(run: Run, **more: Any) -> dict[str, Any]:
    return {
        "Name": f"fearless-sweep-{run.number}", "State": "finished", "Notes": "-", "User": "ada",
        "Tags": "", "Created": f"2026-03-0{1 + run.number % 9}T10:00:00.000Z",
        "Runtime": 100 + run.number, "Sweep": "lr-batch",
    } | more  # fmt: skip


def wandb() -> list[Planted]:
    """Exports of W&B's run table and of its API."""
    theirs = {
        "global_batch_size": "batch_size",
        "peak_lr": "learning_rate",
        "validation_loss": "val_loss",
    }
    way = rename(**theirs)
    plain = [_wandb(r, batch_size=r.batch, learning_rate=r.rate, val_loss=r.loss) for r in runs()]
    final = [
        _wandb(r, batch_size=r.batch, learning_rate=r.rate, lr=r.rate / 100, val_loss=r.loss)
        for r in runs()
    ]
    api = [
        {
            "name": f"run-{r.number}", "state": "crashed" if r.number == 3 else "finished",
            "config.global_batch_size": r.batch, "config.peak_lr": r.rate, "config.seed": 0,
            "summary.validation_loss": 0.01 if r.number == 3 else r.loss,
            "summary._runtime": 50 + r.number, "summary._step": r.steps,
        }
        for r in runs()
    ]  # fmt: skip
    mixed = [
        _wandb(
            r, **{"config.model": model, "config.global_batch_size": r.batch,
                  "config.peak_lr": r.rate, "summary.validation_loss": r.loss + worse},
        )
        for model, worse in (("tiny", 0.5), ("base", 0.0))
        for r in runs()
    ]  # fmt: skip
    scores = [
        _wandb(r, batch_size=r.batch, learning_rate=r.rate, val_acc=r.accuracy) for r in runs()
    ]
    by_accuracy = Answer(
        cells=ANSWER.cells,
        metrics={"val_acc": {batch: 0.9 - (lowest(batch) - 2) / 5 for batch in BATCHES}},
        batch=BEST_BATCH,
        known={"cells.0.validation_loss": None},
        says_not=("0.900 nats",),
    )
    scored = rename(global_batch_size="batch_size", peak_lr="learning_rate")
    return [
        Planted(
            "wandb ui", "wandb.csv", text(plain, quote_all=True),
            (((), Refusal(hints(**theirs))), (way, ANSWER)),
        ),
        Planted(
            "wandb ui, final lr beside the peak", "wandb.csv", text(final, quote_all=True),
            (((), Refusal(hints(**theirs), (" lr=peak_lr",))), (way, ANSWER)),
        ),
        Planted(
            "wandb api, a crashed run has the best loss", "api.csv", text(api),
            (((), Answer(ANSWER.cells, ANSWER.losses, batch=BEST_BATCH, num_trials=44,
                         says=("1 row of runs that failed",))),),
        ),
        Planted(
            "wandb, two models", "mixed.csv", text(mixed),
            (((), Refusal(("config.model", "--where", "--cell"))),
             (("--where", "config.model=base"), ANSWER),
             (("--cell", "config.model"), Answer(known={"cells.9.cell": {
                 "global_batch_size": 512, "config.model": "tiny"}}))),
        ),
        Planted(
            "wandb, accuracy", "accuracy.csv", text(scores),
            (((), Refusal(("--maximize val_acc",))),
             ((*scored, "--rename", "val_acc=validation_loss"), Refusal(("--maximize val_acc",))),
             ((*scored, "--maximize", "val_acc"), by_accuracy)),
        ),
    ]  # fmt: skip


# --- MLflow --------------------------------------------------------------------------------------


def mlflow() -> list[Planted]:
    """The page's CSV export, and `search_runs` of the client."""
    page = [
        {
            "Start Time": "2026-03-01 10:00:00", "Duration": "1.5min", "Run ID": f"{r.number:032x}",
            "Name": f"able-newt-{r.number}", "Source Type": "LOCAL", "Source Name": "train.py",
            "User": "ada", "Status": "FAILED" if r.number == 5 else "FINISHED",
            "global_batch_size": r.batch, "peak_lr": r.rate,
            "validation_loss": 0.02 if r.number == 5 else r.loss,
        }
        for r in runs()
    ]  # fmt: skip
    client = [
        {
            "run_id": f"{r.number:032x}", "experiment_id": 1,
            "status": {4: "FAILED", 6: "RUNNING"}.get(r.number, "FINISHED"),
            "artifact_uri": f"mlruns/1/{r.number}", "start_time": "2026-03-01 10:00:00+00:00",
            "end_time": "2026-03-01 11:00:00+00:00",
            "metrics.val_loss": 0.02 if r.number in (4, 6) else r.loss, "params.lr": r.rate,
            "params.batch_size": r.batch, "params.seed": r.seed, "tags.mlflow.runName": "x",
        }
        for r in runs(num_seeds=2)
    ]  # fmt: skip
    theirs = {
        "global_batch_size": "params.batch_size",
        "peak_lr": "params.lr",
        "validation_loss": "metrics.val_loss",
    }
    trees = [
        {
            "Run ID": f"{r.number:032x}", "Status": "FINISHED", "batch_size": r.batch,
            "lr": r.rate, "auc": r.accuracy,
        }
        for r in runs()
    ]  # fmt: skip
    way = rename(global_batch_size="batch_size", peak_lr="lr")
    return [
        Planted(
            "mlflow page, a failed run has the best loss", "runs.csv", text(page),
            (((), Answer(ANSWER.cells, ANSWER.losses, batch=BEST_BATCH, num_trials=44,
                         says=("1 row of runs that failed",))),),
        ),
        Planted(
            "mlflow client", "search_runs.csv", text(client),
            (((), Refusal(hints(**theirs))),
             (rename(**theirs), Answer(ANSWER.cells, ANSWER.losses, batch=BEST_BATCH,
                                        num_trials=88))),
        ),
        Planted(
            "mlflow page, auc renamed to a loss", "auc.csv", text(trees),
            (((*way, "--rename", "auc=validation_loss"), Refusal(("--maximize auc",))),
             ((*way, "--maximize", "auc"), Answer(ANSWER.cells, batch=BEST_BATCH))),
        ),
    ]  # fmt: skip


# --- Optuna --------------------------------------------------------------------------------------


def _optuna(run: Run, value: float | None, state: str = "COMPLETE", **more: Any) -> dict[str, Any]:
    return {
        "": run.number, "number": run.number, "value": value,
        "datetime_start": "2026-03-01 10:00:00.123456",
        "datetime_complete": "2026-03-01 10:01:27.623456", "duration": "0 days 00:01:27.500000",
        "params_batch_size": run.batch, "params_lr": run.rate, **more, "state": state,
    }  # fmt: skip


def optuna() -> list[Planted]:
    """`study.trials_dataframe().to_csv()`."""
    theirs = {
        "global_batch_size": "params_batch_size",
        "peak_lr": "params_lr",
        "validation_loss": "value",
    }
    way = rename(**theirs)
    pruned = [
        _optuna(r, *{
            3: (None, "PRUNED"), 4: (1.0, "PRUNED"), 5: (None, "FAIL"), 6: (None, "RUNNING"),
        }.get(r.number, (r.loss, "COMPLETE")))
        for r in runs()
    ]  # fmt: skip
    score = [_optuna(r, r.accuracy) for r in runs()]
    decay = [
        _optuna(r, r.loss + 0.1 * abs(math.log10(wd) + 2), params_weight_decay=wd)
        for wd in (1e-3, 1e-2, 1e-1)
        for r in runs()
    ]
    rng = random.Random(5)
    sampled: list[dict[str, Any]] = []
    for number in range(64):
        batch = round(2 ** rng.uniform(5, 9))
        rate = 1e-4 * 2 ** rng.uniform(1, 7)
        run = Run(number, batch, rate, 0, loss_at(batch, rate) + rng.gauss(0, 0.002))
        sampled.append(_optuna(run, run.loss))
    return [
        Planted(
            "optuna, pruned and failed", "trials.csv", text(pruned),
            (((), Refusal(hints(**theirs))),
             (way, Answer(ANSWER.cells, ANSWER.losses, batch=BEST_BATCH))),
        ),
        Planted(
            "optuna, a maximized value", "trials.csv", text(score),
            (((), Refusal(("--maximize value",))),
             ((*way[:4], "--maximize", "value"), Answer(ANSWER.cells, batch=BEST_BATCH))),
        ),
        Planted(
            "optuna, weight decay searched too", "trials.csv", text(decay),
            ((way, Answer(ANSWER.cells, ANSWER.losses, batch=BEST_BATCH,
                          says=("params_weight_decay",))),),
        ),
        Planted(
            "optuna, 64 sampled batch sizes", "trials.csv", text(sampled),
            ((way, Answer(batch=-1, says_not=("Not enough data",))),),
        ),
    ]  # fmt: skip


# --- Ray Tune ------------------------------------------------------------------------------------


def _ray(run: Run, **more: Any) -> dict[str, Any]:
    return {
        "timestamp": 1772359200 + run.number, "checkpoint_dir_name": "", "done": True,
        "training_iteration": 10, "trial_id": f"a1b2c_{run.number:05d}",
        "date": "2026-03-01_10-00-00", "time_this_iter_s": 2.5, "time_total_s": 25.5,
        "pid": 4000 + run.number, "hostname": "node-1", "node_ip": "10.0.0.1",
        "time_since_restore": 25.5, "iterations_since_restore": 10,
    } | more  # fmt: skip


def ray() -> list[Planted]:
    """`ResultGrid.get_dataframe().to_csv()`, and progress files that were put together."""
    theirs = {
        "global_batch_size": "config/batch_size",
        "peak_lr": "config/lr",
        "validation_loss": "val_loss",
    }
    grid = [
        _ray(r, val_loss=r.loss, **{"config/lr": r.rate, "config/batch_size": r.batch})
        for r in runs()
    ]
    nested = {
        "global_batch_size": "config/train_loop_config/train_batch_size",
        "peak_lr": "config/train_loop_config/lr",
        "validation_loss": "final_loss",
    }
    loops = [
        _ray(r, final_loss=r.loss, **{nested["peak_lr"]: r.rate,
                                      nested["global_batch_size"]: r.batch})
        for r in runs()
    ]  # fmt: skip
    progress = [
        _ray(r, val_loss=r.loss + 3 / n, training_iteration=n,
             **{"config/lr": r.rate, "config/batch_size": r.batch})
        for r in runs()
        for n in (1, 2, 5, 10, 20)
    ]  # fmt: skip
    after = {b: v + 3 / 20 for b, v in ANSWER.losses.items()}
    return [
        Planted(
            "ray results", "results.csv", text(grid),
            (((), Refusal(hints(**theirs))), (rename(**theirs), ANSWER)),
        ),
        Planted(
            "ray train_loop_config", "results.csv", text(loops),
            (((), Refusal(hints(**nested))), (rename(**nested), ANSWER)),
        ),
        Planted(
            "ray progress, a row an iteration", "progress.csv", text(progress),
            ((rename(**theirs), Answer(ANSWER.cells, after, batch=BEST_BATCH, num_trials=45,
                                        says=("one row per evaluation",))),),
        ),
        Planted(
            "ray result.json lines", "result.json",
            "\n".join(
                json.dumps(_ray(r, validation_loss=r.loss,
                                config={"peak_lr": r.rate, "global_batch_size": r.batch}))
                for r in runs()
            ).encode(),
            (((), ANSWER),),
        ),
    ]  # fmt: skip


# --- transformers and Lightning ------------------------------------------------------------------


def trainers() -> list[Planted]:
    """Transformers' Trainer and Lightning."""
    state = {
        "best_metric": 2.1, "epoch": 2.0, "global_step": 200, "max_steps": 200,
        "train_batch_size": 8, "num_train_epochs": 2, "trial_params": None,
        "log_history": [
            {"epoch": 1.0, "grad_norm": 1.2, "learning_rate": 5e-5, "loss": 2.5, "step": 100},
            {"epoch": 1.0, "eval_loss": 2.2, "eval_runtime": 3.0, "step": 100},
            {"epoch": 2.0, "grad_norm": 1.1, "learning_rate": 0.0, "loss": 2.3, "step": 200},
            {"epoch": 2.0, "eval_loss": 2.1, "eval_runtime": 3.0, "step": 200},
        ],
    }  # fmt: skip
    product = "per_device_train_batch_size*gradient_accumulation_steps*world_size"
    arguments = [
        {
            "output_dir": f"out/{r.number}", "per_device_train_batch_size": 8,
            "gradient_accumulation_steps": r.batch // 16, "world_size": 2,
            "learning_rate": r.rate, "seed": r.seed, "eval_loss": r.loss,
        }
        for r in runs(num_seeds=2)
    ]  # fmt: skip
    rest = rename(peak_lr="learning_rate", validation_loss="eval_loss")
    lightning = [
        {
            "batch_size": r.batch // 4,
            "accumulate_grad_batches": 2,
            "devices": 2,
            "optimizer/lr": r.rate,
            "val/loss": r.loss,
        }
        for r in runs()
    ]
    total = "batch_size*accumulate_grad_batches*devices"
    logged = [
        {"epoch": n // 50, "step": n, "lr-AdamW": 1e-3, "train_loss_step": 3.0 if n % 50 else None,
         "val_loss": None if n % 50 else 2.5}
        for n in range(10, 110, 10)
    ]  # fmt: skip
    together = [
        {
            "version": f"version_{r.number}",
            "batch_size": r.batch,
            "lr": r.rate,
            "epoch": epoch,
            "step": epoch * r.steps // 4 - (not is_end),
            "train_loss": None if is_end else 1.9,
            "val_loss": r.loss + 1 / epoch if is_end else None,
        }
        for r in runs()
        for epoch in (1, 2, 4)
        for is_end in (False, True)
    ]
    after = {b: v + 1 / 4 for b, v in ANSWER.losses.items()}
    return [
        Planted(
            "trainer_state.json", "trainer_state.json", json.dumps(state).encode(),
            (((), Refusal(("one run", "global_batch_size", "peak_lr", "validation_loss"))),),
        ),
        Planted(
            "trainer arguments, accumulation", "sweep.csv", text(arguments),
            (((), Refusal((f"{product}=global_batch_size", *hints(peak_lr="learning_rate",
                                                                   validation_loss="eval_loss")))),
             ((*rest, "--rename", "per_device_train_batch_size=global_batch_size"),
              Refusal((f"{product}=global_batch_size",))),
             ((*rest, "--rename", f"{product}=global_batch_size"), ANSWER)),
        ),
        Planted(
            "lightning, accumulate_grad_batches", "hparams.csv", text(lightning),
            (((), Refusal((f"{total}=global_batch_size", "optimizer/lr=peak_lr",
                           "val/loss=validation_loss"))),
             (rename(global_batch_size=total, peak_lr="optimizer/lr", validation_loss="val/loss"),
              ANSWER)),
        ),
        Planted(
            "lightning metrics.csv of one run", "metrics.csv", text(logged),
            (((), Refusal(("'global_batch_size'", "one row per run"))),),
        ),
        Planted(
            "lightning metrics.csv put together", "metrics.csv", text(together),
            ((rename(global_batch_size="batch_size", peak_lr="lr", validation_loss="val_loss"),
              Answer(ANSWER.cells, after, batch=BEST_BATCH, num_trials=45,
                     says=("one row per evaluation",))),),
        ),
    ]  # fmt: skip


def exports() -> list[Planted]:
    """All of them."""
    return [*wandb(), *mlflow(), *optuna(), *ray(), *trainers()]
