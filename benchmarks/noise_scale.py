"""What measuring the gradient noise scale costs, and how well the cheap proxy follows it.

    python benchmarks/noise_scale.py [--study studies/lr_vs_batch.yaml] [--seeds 3]

Cost: processor seconds of a step with and without the measurement, in turn, at each batch size of
the study on one worker, and what the measured steps add to a whole trial. Proxy: a
run of each seed at the second-smallest batch; the logarithms of `grad_noise_scale` and
`norm_layer_noise_scale` at its evaluations, correlated (Pearson). The last line is JSON.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import numpy as np
import torch

from scaling.optimizers.build import set_lr
from scaling.records.measurement import Measurement
from scaling.records.recipe import Recipe
from scaling.space.cells import cells, hyperparameters
from scaling.space.layout import Facts
from scaling.space.recipe import resolve
from scaling.spec.evaluation import Evaluation
from scaling.spec.read import read_study
from scaling.spec.study import StudySpec
from scaling.tasks.prepare import prepare_task
from scaling.tasks.task import Task
from scaling.training.build import parallelize
from scaling.training.gradient import GradientOfBatch
from scaling.training.loop import train
from scaling.training.noise_cadence import measures_noise_at
from scaling.training.parallel.workers import Workers
from scaling.training.supervision import Directive

PEAK_LR = 3e-3
NUM_TIMED = 20


def main() -> None:
    """Measure both and print them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--study", type=Path, default=Path("studies/lr_vs_batch.yaml"))
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    spec = read_study(options.study)
    task = prepare_task(spec.workload, spec.evaluation)
    costs = {}
    for batch in spec.batch_sizes():
        costs[batch] = cost_ratio(task, recipe(spec, task, batch, seed=0))
        print(f"B = {batch}: measuring adds {costs[batch]:.2%} to a trial's steps")
    batch = spec.batch_sizes()[min(1, len(spec.batch_sizes()) - 1)]
    runs = [noise_scales(task, recipe(spec, task, batch, seed=s)) for s in range(options.seeds)]
    correlations, ratios = [], []
    for seed, (whole, proxy) in enumerate(runs):
        correlations.append(float(np.corrcoef(np.log(whole), np.log(proxy))[0, 1]))
        ratios.append(float(np.exp(np.mean(np.log(whole / proxy)))))
        print(
            f"seed {seed}, B = {batch}, {len(whole)} evaluations: noise scale {whole[0]:.1f} to "
            f"{whole[-1]:.1f}, correlation {correlations[-1]:.3f}, over proxy {ratios[-1]:.2f}"
        )
    print(
        json.dumps(
            {
                "noise_cost_ratio": {str(b): round(c, 4) for b, c in costs.items()},
                "proxy_correlation": [round(c, 3) for c in correlations],
                "noise_scale_over_proxy": [round(r, 3) for r in ratios],
            }
        )
    )


def recipe(spec: StudySpec, task: Task, global_batch_size: int, *, seed: int) -> Recipe:
    """The study's recipe at one batch size, at a rate that learns."""
    facts = Facts(task.num_train, task.tokens_per_example, {global_batch_size: 1})
    chosen = {"global_batch_size": global_batch_size, "peak_lr": PEAK_LR}
    setting = hyperparameters(spec, cells(spec)[0], chosen)
    return resolve(spec, setting, seed=seed, facts=facts)


def cost_ratio(task: Task, how: Recipe) -> float:
    """What the measured steps add to the processor seconds of all steps of a trial."""
    model = task.new_model(0)
    parallel = parallelize(model, how, Workers())
    gradient, optimizer = GradientOfBatch(task, parallel, how), parallel.weights.optimizer
    set_lr(optimizer, PEAK_LR)
    generator = np.random.default_rng(0)
    extras, plains = [], []
    for _ in range(NUM_TIMED):
        indices = generator.permutation(task.num_train or 0)[
            : how.hyperparameters.global_batch_size
        ]
        seconds = []
        for measure_noise in (False, True):
            started = time.process_time()
            optimizer.zero_grad()
            gradient(indices, measure_noise=measure_noise)
            optimizer.step()
            seconds.append(time.process_time() - started)
        extras.append(seconds[1] - seconds[0])
        plains.append(seconds[0])
    num_steps = how.hyperparameters.num_steps or 0
    size = how.hyperparameters.global_batch_size
    measured = [
        step
        for step in range(num_steps)
        if measures_noise_at(step, how, (step * size, (step + 1) * size), num_train=task.num_train)
    ]
    print(
        f"B = {how.hyperparameters.global_batch_size}: {statistics.median(plains):.4f} s a step, "
        f"{statistics.median(extras):+.4f} s measured, {len(measured)} of {num_steps} steps"
    )
    share = len(measured) / num_steps
    return share * statistics.median(extras) / statistics.median(plains)


def noise_scales(task: Task, how: Recipe) -> tuple[np.ndarray, np.ndarray]:
    """The noise scale and its proxy at the evaluations of a run that have both."""
    measured: list[Measurement] = []

    def report(measurement: Measurement, **_: bool) -> Directive:
        measured.append(measurement)
        return "continue"

    every = max(1, (how.hyperparameters.num_steps or 0) // 32)
    train(task, how, Evaluation(every_steps=every, num_examples=50), Workers(), report)
    pairs = [
        (m.grad_noise_scale, m.norm_layer_noise_scale)
        for m in measured
        if m.grad_noise_scale is not None and m.norm_layer_noise_scale is not None
    ]
    whole, proxy = np.array(pairs, dtype=np.float64).T
    return whole, proxy


if __name__ == "__main__":
    main()
