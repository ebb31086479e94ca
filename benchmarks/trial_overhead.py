"""What a trial costs besides training: on the pool, and in Ray's documented pattern.

    python benchmarks/trial_overhead.py [--trials 20] [--documented-trials 3]

The same trivial trial, three reports from two gloo workers, is run by Ray Tune in three ways, one
trial at a time, each way in a process and a Ray cluster of its own:

- pool: this project's relay and warm worker group;
- documented: a Tune function that builds a TorchTrainer, with Ray's defaults;
- tuned: the same with all that makes it faster (reused actors, a quick controller, no metrics).

A trial's time is from the end of the one before to its own end; the first one is not counted. The
last line is JSON with the medians in seconds.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

NUM_WORKERS = 2
TUNED = {
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.1",
    "RAY_TRAIN_ENABLE_PREEMPTION_WATCHER": "0",
    "RAY_TRAIN_METRICS_ENABLED": "0",
}
STUDY: dict[str, Any] = {
    "name": "overhead",
    "question": "What does a trial cost that trains nothing?",
    "workload": {"task": "noisy_quadratic", "num_chains": 4},
    "scientific": {"global_batch_size": [4]},
    "nuisance": {"peak_lr": {"log_uniform": [0.01, 0.1]}},
    "fixed": {"optimizer": "sgd"},
    "budget": {"steps": 2},
    "evaluation": {"every_steps": 1},
    "search": {"trials_per_cell": 1},
    "resources": {"num_workers": NUM_WORKERS},
}


def main() -> None:
    """Run all ways, or one of them in this process."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=20, help="on the pool")
    parser.add_argument("--documented-trials", type=int, default=3, help="of either other way")
    parser.add_argument("--way", choices=sorted(WAYS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.way:
        numbers = options.trials if options.way == "pool" else options.documented_trials
        print(json.dumps(WAYS[options.way](numbers)))
        return
    seconds = {way: _in_own_process(way, options) for way in WAYS}
    medians = {way: statistics.median(values) for way, values in seconds.items()}
    for way, values in seconds.items():
        print(
            f"{way:<10} median {medians[way]:6.2f} s a trial, "
            f"{min(values):.2f}–{max(values):.2f} s, {len(values)} trials"
        )
    result = {f"{way}_seconds_per_trial": round(median, 4) for way, median in medians.items()}
    result["tuned_over_pool"] = round(medians["tuned"] / medians["pool"], 2)
    print(json.dumps(result))


def _in_own_process(way: str, options: argparse.Namespace) -> list[float]:
    command = [sys.executable, __file__, "--way", way, "--trials", str(options.trials)]
    command += ["--documented-trials", str(options.documented_trials)]
    with tempfile.TemporaryDirectory() as folder:
        # Ray pickles what runs in its workers; they find this file and the package as modules.
        path = os.pathsep.join([str(Path(__file__).parent), *sys.path[1:]])
        environment = {**os.environ, "PYTHONPATH": path}
        done = subprocess.run(
            command, cwd=folder, env=environment, capture_output=True, text=True, check=False
        )
    if done.returncode:
        raise SystemExit(f"{way} failed:\n{done.stdout}\n{done.stderr}")
    return json.loads(done.stdout.splitlines()[-1])


class _Ends:
    """When trials ended."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def seconds(self) -> list[float]:
        return [after - before for before, after in zip(self.times, self.times[1:], strict=False)]


def _one_after_another(trainable: Any, configs: list[dict[str, Any]], **tune_options: Any) -> Any:
    """Run a trial for each config; returns the seconds from each end to the next."""
    from ray import tune

    ends = _Ends()

    class Clock(tune.Callback):
        def on_trial_complete(self, **_: Any) -> None:
            ends.times.append(time.monotonic())

        def __getstate__(self) -> dict[str, Any]:
            return {}

    results = tune.Tuner(
        trainable,
        param_space={"config": tune.grid_search(configs)},
        tune_config=tune.TuneConfig(max_concurrent_trials=1, **tune_options),
        run_config=tune.RunConfig(
            storage_path=str(Path("tune").absolute()), callbacks=[Clock()], verbose=0
        ),
    ).fit()
    if results.errors:
        raise SystemExit(str(results.errors[0]))
    return ends.seconds()


def _pool(num_trials: int) -> list[float]:
    from ray import tune

    from scaling.runner.cluster import connect, disconnect
    from scaling.runner.encoded_data import shared_tasks
    from scaling.runner.worker_pool import WorkerPool
    from scaling.spec.study import StudySpec
    from scaling.tasks.prepare import prepare_task

    spec = StudySpec.model_validate(STUDY)
    task = prepare_task(spec.workload, spec.evaluation)
    connect(None, Path("ray.log").absolute())
    try:
        checkpoints = str(Path("checkpoints").absolute())
        storage = Path("train").absolute()
        with WorkerPool(
            spec,
            sizes=(NUM_WORKERS,),
            storage=storage,
            checkpoints=checkpoints,
            tasks=shared_tasks(spec, [task]),
            content={},
            code={},
            note=print,
            grows=False,
        ) as pool:
            pool.wait_until_ready()
            configs = [
                {"broker": pool.broker_name, "job": _job(number)}
                for number in range(num_trials + 1)
            ]
            resources = tune.PlacementGroupFactory([{"memory": 1e6}])
            return _one_after_another(
                tune.with_resources(_relay, resources), configs, reuse_actors=True
            )
    finally:
        disconnect()


def _relay(config: dict[str, Any]) -> None:
    from scaling.runner.relay import relay

    relay(config["config"])


def _job(number: int) -> Any:
    from scaling.runner.jobs import Job
    from scaling.space.cells import cells, hyperparameters
    from scaling.space.layout import Facts
    from scaling.space.recipe import resolve
    from scaling.spec.study import StudySpec

    spec = StudySpec.model_validate(STUDY)
    values = hyperparameters(spec, cells(spec)[0], {"peak_lr": 0.05})
    recipe = resolve(spec, values, seed=number, facts=Facts(None, 1.0))
    return Job(f"trial-{number:03}", recipe)


def _documented(num_trials: int) -> list[float]:
    return _trainer_per_trial(num_trials, environment={})


def _tuned(num_trials: int) -> list[float]:
    return _trainer_per_trial(num_trials, environment=TUNED, reuse_actors=True)


def _trainer_per_trial(
    num_trials: int, environment: dict[str, str], **tune_options: Any
) -> list[float]:
    import ray

    os.environ.update(environment)
    ray.init(runtime_env={"env_vars": environment}, log_to_driver=False)
    try:
        configs = [{"seed": number} for number in range(num_trials + 1)]
        return _one_after_another(_train_alone, configs, **tune_options)
    finally:
        ray.shutdown()


def _train_alone(config: dict[str, Any]) -> None:
    import ray.train
    from ray.train.torch import TorchTrainer
    from ray.tune.integration.ray_train import TuneReportCallback

    TorchTrainer(
        _three_reports,
        train_loop_config=config["config"],
        # A Tune function has a CPU of its own by default; its workers need the machine's.
        scaling_config=ray.train.ScalingConfig(
            num_workers=NUM_WORKERS, resources_per_worker={"CPU": 0.5}
        ),
        run_config=ray.train.RunConfig(
            storage_path=tempfile.mkdtemp(prefix="overhead-"),
            callbacks=[TuneReportCallback()],
        ),
    ).fit()


def _three_reports(config: dict[str, Any]) -> None:
    import ray.train

    for step in range(3):
        ray.train.report({"step": step, "loss": config["seed"] / (step + 1)})


WAYS = {"pool": _pool, "documented": _documented, "tuned": _tuned}

if __name__ == "__main__":
    main()
