"""What the report of a large study costs.

    python benchmarks/large_report.py [--cells 20] [--trials 500] [--output DIR]

Makes a study with a planted optimum (cells are batch sizes; the rate, weight decay and clipping
are searched; 20 evaluations a trial; three confirm seeds a cell), writes its report in a process
of its own and prints what it took. The last line is JSON: the seconds of analysing and writing,
the most memory of that process (the records included), and the size of report.html.
"""

import argparse
import json
import math
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

from scaling.records.measurement import Measurement
from scaling.records.recipe import Recipe
from scaling.records.study import StudyRecord
from scaling.records.trial import TrialRecord
from scaling.report.document import write_report
from scaling.space.cells import hyperparameters
from scaling.space.layout import Facts
from scaling.space.recipe import resolve
from scaling.spec.phases import Phase
from scaling.spec.study import StudySpec

EVALUATIONS = 20


def main() -> None:
    """Make the study, write the report and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cells", type=int, default=20)
    parser.add_argument("--trials", type=int, default=500, help="search trials a cell")
    parser.add_argument("--output", type=Path, help="keep the report here")
    options = parser.parse_args()
    study = large_study(options.cells, options.trials)
    with tempfile.TemporaryDirectory() as folder:
        output = options.output or Path(folder)
        start, processor = time.monotonic(), time.process_time()
        write_report(study, output)
        seconds = time.monotonic() - start
        processor = time.process_time() - processor
        html_bytes = (output / "report.html").stat().st_size
    peak_bytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(f"trials       {len(study.trials):>10,}")
    print(f"seconds      {seconds:>10.1f}")
    print(f"of processor {processor:>10.1f}")
    print(f"peak memory  {peak_bytes / 1e6:>10,.0f} MB")
    print(f"report.html  {html_bytes / 1e6:>10.2f} MB")
    print(
        json.dumps(
            {"seconds": round(seconds, 2), "peak_bytes": peak_bytes, "html_bytes": html_bytes}
        )
    )


def large_study(num_cells: int, trials_per_cell: int) -> StudyRecord:
    """A searched and confirmed study whose best rate grows as the root of the batch."""
    spec = _spec([16 * (number + 1) for number in range(num_cells)], trials_per_cell)
    rng = np.random.default_rng(0)
    trials: list[TrialRecord] = []
    for batch in spec.batch_sizes():
        for number in range(trials_per_cell):
            lr = float(np.exp(rng.uniform(math.log(1e-4), math.log(1e-1))))
            choices = {
                "peak_lr": lr,
                "weight_decay": float(rng.uniform(0, 0.1)),
                "clip_norm": None if rng.random() < 0.5 else 1.0,
            }
            trials.append(_trial(spec, "search", batch, choices, number, 0, rng))
        best = {"peak_lr": _optimum(batch), "weight_decay": 0.05, "clip_norm": 1.0}
        trials += [_trial(spec, "confirm", batch, best, seed, seed, rng) for seed in (1, 2, 3)]
    urls = {t.trial_id: f"http://localhost:5000/#/experiments/1/runs/{t.trial_id}" for t in trials}
    return StudyRecord(spec, tuple(trials), {"python": "3.11"}, urls)


def _spec(batch_sizes: list[int], trials_per_cell: int) -> StudySpec:
    model = {
        "architecture": "llama",
        "hidden_size": 64,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
    }
    return StudySpec.model_validate(
        {
            "name": "large_report",
            "question": "What does the report of a large study cost?",
            "workload": {
                "task": "causal_lm",
                "model": model,
                "data": {"source": "builtin:grapheme_to_phoneme"},
            },
            "scientific": {"global_batch_size": batch_sizes},
            "nuisance": {
                "peak_lr": {"log_uniform": [1e-4, 1e-1]},
                "weight_decay": {"uniform": [0.0, 0.1]},
                "clip_norm": {"choice": [None, 1.0]},
            },
            "budget": {"steps": 400},
            "evaluation": {"every_steps": 20},
            "target": {"at_most": 1.0},
            "search": {"trials_per_cell": trials_per_cell},
            "confirm": {"num_seeds": 3},
        }
    )


def _optimum(batch: int) -> float:
    return 4e-3 * math.sqrt(batch / 64)


def _trial(
    spec: StudySpec,
    phase: Phase,
    batch: int,
    choices: dict[str, float | None],
    number: int,
    seed: int,
    rng: np.random.Generator,
) -> TrialRecord:
    cell = {"global_batch_size": batch}
    recipe = _recipe(spec, batch, choices, seed)
    distance = math.log((choices["peak_lr"] or 0.0) / _optimum(batch))
    decay = choices["weight_decay"] or 0.0
    final = 0.5 + 0.06 * distance**2 + 20 * (decay - 0.05) ** 2 + 0.01 * float(rng.normal())
    rate = 1 / (20 + 2000 / batch)  # of the loss's fall, a step: faster with a larger batch
    return TrialRecord(
        trial_id=f"{phase}-global_batch_size={batch}-{number:03d}",
        phase=phase,
        cell=cell,
        choices=choices,
        recipe=recipe,
        status="diverged" if distance > 2.5 else "done",
        measurements=_measurements(batch, final, rate, rng),
    )


def _recipe(spec: StudySpec, batch: int, choices: dict[str, float | None], seed: int) -> Recipe:
    values = hyperparameters(spec, {"global_batch_size": batch}, choices)
    return resolve(spec, values, seed=seed, facts=Facts(4000, 6.0))


def _measurements(
    batch: int, final: float, rate: float, rng: np.random.Generator
) -> tuple[Measurement, ...]:
    made: list[Measurement] = []
    for index in range(EVALUATIONS + 1):
        step = 20 * index
        loss = final + 2.5 * math.exp(-rate * step) + 0.004 * float(rng.normal())
        made.append(
            Measurement(
                step=step,
                examples=step * batch,
                tokens=step * batch * 6,
                seconds=0.01 * step * (1 + batch / 256),
                lr=1e-3,
                step_loss=loss,
                grad_norm=1.0,
                train_loss=loss - 0.1,
                train_loss_stderr=0.003,
                validation_loss=loss,
                validation_loss_stderr=0.004,
                test_loss=loss + 0.01,
                test_loss_stderr=0.004,
                grad_sq_norm=0.1,
                grad_covariance_trace=10.0,
            )
        )
    return tuple(made)


if __name__ == "__main__":
    main()
