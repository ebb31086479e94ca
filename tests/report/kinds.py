"""Every kind of study and of table that a report is written of, as findings."""

import functools
import random
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from scaling.analysis.findings import Findings, analyse
from scaling.analysis.trial_rows import sweep_of
from scaling.records.study import StudyRecord
from scaling.records.trial import Status, TrialRecord
from scaling.report.foreign_tables.sweep_table import read_table
from scaling.spec.phases import Limits
from tests.analysis import test_branched, test_target_recipe
from tests.analysis.recorded import default_study
from tests.analysis.synthetic import Truth, joint_study, spec, study, trial
from tests.analysis.test_baseline import with_baseline
from tests.analysis.test_surface_reading import planted
from tests.report.test_importance import searched

RATES = (2e-4, 4e-4, 8e-4, 1.6e-3, 3.2e-3, 6.4e-3)


def of(record: StudyRecord, **limits: Any) -> Findings:
    """The findings of a study, perhaps within limits on the next run."""
    sweep = sweep_of(record)
    return analyse(replace(sweep, limits=Limits.model_validate(limits)) if limits else sweep)


def cut(count: int) -> Findings:
    """A study that was interrupted after so many trials."""
    record = study()
    return of(replace(record, trials=record.trials[:count]))


def changed(change: Callable[[int, TrialRecord], TrialRecord], **sections: Any) -> Findings:
    """A study with something done to its trials."""
    record = study(**sections)
    trials = tuple(change(place, trial) for place, trial in enumerate(record.trials))
    return of(replace(record, trials=trials))


def ended(status: Any, *, every: int = 1) -> Findings:
    """A study of which every so many trials ended otherwise."""
    return changed(lambda place, t: replace(t, status=status) if place % every == 0 else t)


def stripped(*names: str) -> Findings:
    """A study that did not measure some quantities."""
    absent: dict[str, Any] = dict.fromkeys(names)
    return changed(
        lambda _, t: replace(t, measurements=tuple(replace(m, **absent) for m in t.measurements))
    )


def at_the_target(share: int) -> Findings:
    """A model of which every so many trials start at the target."""
    sweep = sweep_of(study())
    there = {"steps_to_target": 0.0, "examples_to_target": 0.0, "seconds_to_target": 0.0}
    rows = [replace(row, **there) if n % share == 0 else row for n, row in enumerate(sweep.rows)]
    return analyse(replace(sweep, rows=tuple(rows)))


def joint_by_the_surface(status: Status = "done") -> Findings:
    """A joint search whose recommended recipe was confirmed, by trials that ended so."""
    record = joint_study()
    chosen = [replace(trial, surface_round=0) for trial in record.trials]
    choices = dict(chosen[0].choices) | {"global_batch_size": 64, "base_lr": 0.00777}
    confirmed = [
        trial(
            Truth(), "confirm", 64, 0.00777, number=seed, seed=seed, cell={}, choices=choices,
            rng=np.random.default_rng(seed), status=status,
        )
        for seed in (1, 2)
    ]  # fmt: skip
    return of(replace(record, trials=(*chosen, *confirmed)))


def two_optimizers() -> Findings:
    """Cells that differ in more than the batch size."""
    record = study(transfer=None)
    trials = [
        replace(t, cell={**t.cell, "clip_norm": norm}, trial_id=f"{t.trial_id}-{norm}")
        for t in record.trials
        if t.phase != "transfer"
        for norm in (None, 1.0)
    ]
    scientific = {"global_batch_size": [16, 64, 256, 1024], "clip_norm": [None, 1.0]}
    return of(StudyRecord(spec(scientific=scientific, transfer=None), tuple(trials)))


def table(folder: Path, header: str, lines: list[str], **options: Any) -> Findings:
    """A table from elsewhere."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "sweep.csv"
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return analyse(read_table(path, **options).sweep)


def grid(
    folder: Path, further: str = "", cells: str = "", *, noise: float = 0.004, num_seeds: int = 1,
    batches: tuple[int, ...] = (32, 64, 128, 256), best: float = 1e-3, **options: Any,
) -> Findings:  # fmt: skip
    """Losses over rate and batch, with further columns that `{0}` gives a number."""
    rng = random.Random(5)
    lines: list[str] = []
    for batch in batches:
        for rate in RATES:
            for seed in range(num_seeds):
                away = np.log(rate / best / np.sqrt(batch / 64))
                loss = 2 + 0.05 * away**2 + rng.gauss(0, noise)
                lines.append(f"{batch},{rate},{loss},{seed}" + cells.format(round(5000 / batch)))
    return table(
        folder, f"global_batch_size,peak_lr,validation_loss,seed{further}", lines, **options
    )


KINDS: dict[str, Callable[[Path], Findings]] = {
    "whole study": lambda _: of(study()),
    "one seed": lambda _: of(study(num_seeds=1)),
    "no target": lambda _: of(study(target=None)),
    "target never reached": lambda _: of(study(target={"at_most": 0.01})),
    "large noise": lambda _: of(study(Truth(noise=0.3))),
    "no noise scale": lambda _: stripped("grad_sq_norm", "grad_covariance_trace"),
    "no training loss": lambda _: stripped("train_loss", "train_loss_stderr"),
    "no test loss": lambda _: stripped("test_loss", "test_loss_stderr"),
    "search alone": lambda _: of(study(transfer=None, confirm=None, num_seeds=0)),
    "objective is steps": lambda _: of(
        study(search={"trials_per_cell": 12, "objective": "steps_to_target"})
    ),
    "nothing": lambda _: of(StudyRecord(spec(), ())),
    "one trial": lambda _: cut(1),
    "two trials": lambda _: cut(2),
    "five trials": lambda _: cut(5),
    "twenty trials": lambda _: cut(20),
    "all diverged": lambda _: ended("diverged"),
    "all failed": lambda _: ended("failed"),
    "half diverged": lambda _: ended("diverged", every=2),
    "some failed": lambda _: ended("failed", every=5),
    "at the target before the first step": lambda _: at_the_target(1),
    "half at the target before the first step": lambda _: at_the_target(2),
    "joint search": lambda _: of(joint_study()),
    "joint search by the surface": lambda _: joint_by_the_surface(),
    "two clip norms": lambda _: two_optimizers(),
    "nuisance searched": lambda _: of(searched(20)),
    "branched": lambda _: of(test_branched.study(test_branched.branch_records(0.01))),
    "noisy branches": lambda _: of(test_branched.study(test_branched.branch_records(1.0))),
    "one seed a branch": lambda _: of(
        test_branched.study(test_branched.branch_records(0.01, num_seeds=1))
    ),
    "diverged branches": lambda _: of(
        test_branched.study(test_branched.branch_records(0.01, diverged=(8, 16)))
    ),
    "baseline not beaten": lambda _: of(with_baseline(study(), 0.3)),
    "baseline beaten by some": lambda _: of(with_baseline(study(Truth(noise=0.2)), 0.5)),
    "deadline": lambda _: of(study(), deadline_seconds=1.5),
    "deadline without a target": lambda _: of(study(target=None), deadline_seconds=1.5),
    "deadline that nothing meets": lambda _: of(study(), deadline_seconds=1e-3),
    "more workers": lambda _: of(study(), num_workers=4),
    "workers never measured": lambda _: of(study(), num_workers=7),
    "ceiling on cost": lambda _: of(study(), cost_ceiling=1.0, price_per_worker_hour=2.0),
    "recipes for loss and target": lambda _: analyse(
        test_target_recipe.planted(with_transfer=True)
    ),
    "recorded study": lambda _: analyse(default_study()),
    "searched by the surface": lambda _: planted(
        {16: list(RATES), 64: [1e-3], 256: [1e-3, 4e-3, 2e-2], 1024: [3e-3]}, is_adaptive=True
    ),
    "table of losses": grid,
    "table with seeds": lambda folder: grid(folder, num_seeds=3),
    "table of two batch sizes": lambda folder: grid(folder, batches=(32, 256)),
    "table of one batch size": lambda folder: grid(folder, batches=(64,)),
    "table best at an edge": lambda folder: grid(folder, best=1.0),
    "table too noisy": lambda folder: grid(folder, noise=2.0),
    "table with steps": lambda folder: grid(folder, ",steps_to_target", ",{0}7"),
    "table with everything": lambda folder: grid(
        folder, ",train_loss,steps,examples,seconds,steps_to_target",
        ",1.5,{0}9,{0}900,{0}.5,{0}7", num_seeds=2,
    ),
    "table of steps": lambda folder: table(
        folder, "global_batch_size,steps_to_target",
        [f"{2**power},{50 + 4096 // 2**power}" for power in range(4, 11)],
    ),
    "table of steps without a bend": lambda folder: table(
        folder, "global_batch_size,steps_to_target",
        [f"{2**power},{40960 // 2**power}" for power in range(4, 11)],
    ),
    "table of one step count": lambda folder: table(
        folder, "global_batch_size,steps_to_target", ["64,100"]
    ),
    "score": lambda folder: grid(folder, ",accuracy", ",0.{0}1", maximize="accuracy"),
    "score with seeds": lambda folder: grid(
        folder, ",accuracy", ",0.{0}1", num_seeds=2, maximize="accuracy"
    ),
    "score with steps": lambda folder: grid(
        folder, ",accuracy,steps_to_target", ",0.{0}1,{0}7", maximize="accuracy"
    ),
    "diverged and pruned rows": lambda folder: table(
        folder, "global_batch_size,peak_lr,validation_loss,steps_to_target,diverged",
        ["32,0.001,2.0,,false", "32,0.002,1.9,400,0", "32,0.004,,,true", "64,0.008,nan,,"],
    ),
    "one row": lambda folder: table(
        folder, "global_batch_size,peak_lr,validation_loss", ["32,0.001,2.0"]
    ),
}  # fmt: skip


@functools.cache
def findings_of(kind: str) -> Findings:
    """The findings of a kind, made once in a process: that takes a second or two."""
    with tempfile.TemporaryDirectory() as folder:
        return KINDS[kind](Path(folder))
