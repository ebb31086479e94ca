"""What must hold before a study's first trial; a plan and a run are refused for the same reasons.

Nothing here starts anything or leaves anything behind.
"""

import os
from collections.abc import Iterator, Mapping
from itertools import product

from scaling.arithmetic.batching import BatchRamp
from scaling.plan.machine import num_gpus_for
from scaling.plan.start import Start
from scaling.process import without_garbage_collection
from scaling.records.metrics import Metric
from scaling.runner.joining import require_address
from scaling.runner.preflight import num_workers_on, require_startable_machine, starts_here
from scaling.runner.state import require_same_content
from scaling.space.branches import require_branches_fit
from scaling.space.budget import batch_ramp_of, num_steps_of
from scaling.space.cells import cells, hyperparameters
from scaling.space.layout import Facts
from scaling.spec.checks.batch import RAMPS, batch_ramp_issues
from scaling.spec.checks.phases import early_stopping_issues
from scaling.spec.checks.places import places_of
from scaling.spec.checks.schedule import decay_issues, warmup_issues
from scaling.spec.evaluation import CADENCES, LOSS
from scaling.spec.fields import given_fields
from scaling.spec.phases import TO_TARGET
from scaling.spec.study import StudySpec
from scaling.tasks.content import content_of, data_hash
from scaling.tasks.data.sources import require_source
from scaling.tasks.errors import DataError
from scaling.tasks.extras import require_deepspeed
from scaling.tasks.own.code import code_of
from scaling.tasks.prepare import prepare_tasks
from scaling.tasks.task import AnyTask, FinishedTask, TaskData, WritingTask

MAX_EVALUATIONS = 10_000
"""Of a trial: each is half a kilobyte of its record and some ten points in MLflow."""


def require_machine(start: Start) -> None:
    """Check what a study runs on: the machine, and installed extras.

    What a cluster has that runs already is not known without joining it, and is not looked at; that
    something listens at its address is.

    Raises:
        StartError: If the machine cannot run one trial, or no cluster is where one is joined.
        DataError: If an extra is not installed.
    """
    spec = start.spec
    require_deepspeed(spec.resources.strategy)
    require_source(spec.workload)
    address = start.address or os.environ.get("RAY_ADDRESS")
    if address and address not in ("auto", "local"):
        require_address(address, "--address" if start.address else "RAY_ADDRESS", start.is_plan)
    if starts_here(start.address):
        require_startable_machine()
        if not start.resume:  # perhaps less is left than one would need a larger machine for
            here = {"CPU": os.cpu_count() or 1, "GPU": num_gpus_for(spec)}
            num_workers_on([here], start.with_gpus().resources)


def require_tasks(spec: StudySpec, *, resume: bool = False) -> tuple[AnyTask, ...]:
    """Read and encode the data, and try the model on them; at every size of a ladder.

    Args:
        spec: The study.
        resume: Whether it goes on with what its storage holds.

    Returns:
        The task that the trials train or look up; of a ladder, that of each size.

    Raises:
        DataError: If data or model cannot be had, do not go together, or do not fit the study.
        BranchError: If a branch would pass the end of the run that it leaves.
        StateError: If the data are not those that the study was started with.
    """
    tasks = prepare_tasks(spec)
    if resume:
        content = content_of(spec.workload, data_hash(task.content_hash for task in tasks))
        require_same_content(spec, content, code_of(spec.workload))
    for number, (size, task) in enumerate(zip(spec.sizes or (spec,), tasks, strict=True)):
        try:
            _require_fit(size, task)
            if not resume:  # one that has begun has its cadence for good
                _require_few_evaluations(size, task)
        except DataError as error:
            if not spec.sizes:
                raise
            raise error.within(f"ladder.sizes.{number}") from error
    if spec.ladder is not None:
        from scaling.plan.ladder_checks import require_ladder

        require_ladder(spec, tasks)
    return tasks


def _require_fit(spec: StudySpec, task: AnyTask) -> None:
    """Check that a task can be trained as its study says; raises as `require_tasks`."""
    _require_metrics(spec, task)
    _require_tokens(spec, task)  # by which the sizes of a batch that grows may be counted
    _require_enough_examples(spec, task)
    _require_length(spec, Facts(task.num_train, task.tokens_per_example))
    if spec.workload.has_layers:
        with without_garbage_collection():
            from scaling.plan.model_checks import require_model

        require_model(spec, task)


def start_notes(spec: StudySpec, task: TaskData) -> list[str]:
    """What a study does otherwise than its file seems to say, a sentence each."""
    summary = task.data_summary
    notes = list(summary.notes) if summary is not None else []
    notes += [f"Exactness is waived: {why}." for why in (summary.waived if summary else ())]
    if "num_examples" in given_fields(spec.evaluation):
        wanted = spec.evaluation.num_examples
        notes += [
            f"{split} is evaluated on all {count:,} examples (evaluation.num_examples: {wanted:,})."
            for split in task.splits
            if (count := task.num_evaluated(split)) < wanted and task.num_train is not None
        ]
    generation = getattr(spec.workload, "generation", None)
    if generation is not None and isinstance(task, WritingTask):
        wanted = generation.num_examples
        count = 0 if task.writing is None else len(task.writing.references)
        if "num_examples" in given_fields(generation) and count < wanted:
            notes.append(
                f"The model writes for all {count:,} examples of the validation subset "
                f"(workload.generation.num_examples: {wanted:,})."
            )
    sharpness = spec.evaluation.sharpness
    if sharpness is not None and task.num_train is not None:
        wanted = sharpness.num_examples
        if "num_examples" in given_fields(sharpness) and task.num_train < wanted:
            notes.append(
                f"Sharpness is measured on all {task.num_train:,} training examples "
                f"(evaluation.sharpness.num_examples: {wanted:,})."
            )
    return notes + _precision_notes(spec)


def _precision_notes(spec: StudySpec) -> list[str]:
    """That fp32 leaves a GPU's fast matrix products unused; nothing where none is seen here."""
    resources = spec.resources
    if resources.precision != "fp32" or resources.gpus_per_worker == 0:
        return []
    from scaling.measures.throughput import gpus_with_tf32

    return [
        f"{name} has tf32, several times as fast as fp32: see resources.precision."
        for name in sorted(set(gpus_with_tf32()))
    ]


def _require_metrics(spec: StudySpec, task: TaskData) -> None:
    """Check that the objective and the target are of metrics that the task measures, that way."""
    known, search = task.described_metrics, spec.search
    objective, target = search.objective, spec.target
    if objective != LOSS and objective not in TO_TARGET:
        metric = _metric(known, objective, "search.objective", ", ".join((LOSS, *TO_TARGET)))
        if metric.is_last_only and search.early_stopping is not None:
            why = f"{objective} is measured once, after the last step; leave early_stopping out"
            raise DataError("search.early_stopping", f"compares trials along their runs, and {why}")
    if target is None or target.metric == LOSS:
        return
    metric = _metric(known, target.metric, "target.metric", LOSS)
    if metric.is_last_only:
        along = (n for n, m in known.items() if m.direction is not None and not m.is_last_only)
        what = f"{target.metric} is measured once, after the last step"
        why = f"so that no steps to it can be counted (allowed: {', '.join((LOSS, *along))})"
        raise DataError("target.metric", f"{what}, {why}")
    given, side = ("at_most", "at_least") if target.at_least is None else ("at_least", "at_most")
    for bound, limit, is_past in (
        ("below", metric.least, metric.least is not None and target.value < metric.least),
        ("above", metric.most, metric.most is not None and target.value > metric.most),
    ):
        if is_past:
            what = f"no value of {target.metric} is {bound} {limit:g}"
            allowed = f"at {'least' if bound == 'below' else 'most'} {limit:g}"
            message = f"{what} (got: {target.value:g}; allowed: {allowed})"
            raise DataError(f"target.{given}", message)
    if (metric.direction == "minimize") != (given == "at_most"):
        message = f"{target.metric} is one to {metric.direction} (got: {target.value:g})"
        raise DataError(f"target.{given}", f"{message}; allowed: {side}")


def _metric(known: Mapping[str, Metric], name: str, path: str, others: str) -> Metric:
    """What is said of a metric of the task that says which way it should go."""
    metric = known.get(name)
    if metric is None:
        names = ", ".join(n for n, m in known.items() if m.direction is not None)
        allowed = f"{others}, {names}" if names else others
        raise DataError(path, f"the task has no metric {name!r} (allowed: {allowed})")
    if metric.direction is None:
        message = f"{name} has no direction; say maximize or minimize of it in workload.directions"
        raise DataError(path, message)
    return metric


def _require_enough_examples(spec: StudySpec, task: TaskData) -> None:
    """Check that no step takes more examples than there are, which would repeat some in it."""
    there = task.num_train
    if there is None:
        return
    for path, sizes in _sizes_by_path(spec, task):
        if too_large := sorted({size for size in sizes if size > there}):
            shown = ", ".join(map(str, too_large[:8])) + ", …" * (len(too_large) > 8)
            message = f"a step of {shown} examples would repeat some of the {there} training "
            raise DataError(path, f"{message}examples (allowed: at most {there})")


def _require_few_evaluations(spec: StudySpec, task: AnyTask) -> None:
    """Check that what a trial measures along its run can be recorded, sent and shown."""
    facts = Facts(task.num_train, task.tokens_per_example)
    for ramp in () if isinstance(task, FinishedTask) else _ramps(spec):
        steps = num_steps_of(spec, ramp, facts)
        if steps is None or steps < MAX_EVALUATIONS:
            continue
        from scaling.training.timing import num_evaluations  # here, since it loads torch

        count = num_evaluations(spec.evaluation, ramp, steps)
        if count > MAX_EVALUATIONS:
            given = spec.evaluation.model_dump(include=set(CADENCES), exclude_none=True)
            [(field, value)] = given.items()
            allowed = f"(allowed: at most {MAX_EVALUATIONS:,})"
            message = f"{value} makes {count:,} evaluations of a trial {allowed}"
            raise DataError(f"evaluation.{field}", message)


def _require_length(spec: StudySpec, facts: Facts) -> None:
    """Check what must end within a run, whose steps the sizes of the data may decide."""

    def steps_of(spec: StudySpec, ramp: BatchRamp) -> int | None:
        return num_steps_of(spec, ramp, facts)

    for issue in (
        *batch_ramp_issues(spec, steps_of), *warmup_issues(spec, steps_of),
        *decay_issues(spec, steps_of),
        *early_stopping_issues(spec, steps_of, facts.tokens_per_example),
    ):  # fmt: skip
        raise DataError(issue.path, issue.without_path)
    require_branches_fit(spec, facts)


def _require_tokens(spec: StudySpec, task: TaskData) -> None:
    """Check that examples have tokens, where something is counted in them."""
    early = spec.search.early_stopping
    for path, value in (
        ("budget.tokens", spec.budget.tokens),
        ("search.early_stopping.first_rung_tokens", early and early.first_rung_tokens),
    ):
        if value is not None and task.tokens_per_example is None:
            raise DataError(path, "examples have no tokens; give scaling.CustomTask its length")


def _sizes_by_path(spec: StudySpec, task: TaskData) -> Iterator[tuple[str, list[int]]]:
    """Every field that makes batches, and the sizes that trials come to by it."""
    facts = Facts(task.num_train, task.tokens_per_example)
    for place in places_of(spec, "global_batch_size", recipes=False):
        yield place.path, list(place.values)
    if spec.branch is not None:
        base = spec.branch.base_batch_size
        yield "branch.multiples", [base * multiple for multiple in spec.branch.multiples]
    for field in RAMPS:
        for place in places_of(spec, field):
            yield place.path, list(_ramp_sizes(spec, facts))


def _ramp_sizes(spec: StudySpec, facts: Facts) -> Iterator[int]:
    """The largest batch of every run whose batch grows."""
    for ramp in _ramps(spec):
        steps = num_steps_of(spec, ramp, facts)
        if steps is None:
            yield ramp.first * ramp.factor ** len(ramp.at_examples)
        else:
            yield max(size for size, _ in ramp.sizes(steps))


def _ramps(spec: StudySpec) -> Iterator[BatchRamp]:
    """How the batch of every run grows; once for those in which it does not."""
    if not any(places_of(spec, field) for field in RAMPS):
        yield from map(BatchRamp, spec.batch_sizes())
        return
    drawn = spec.nuisance.distributions()
    names = [name for name in drawn if "batch" in name]
    choices = [drawn[name].choice or () for name in names]
    for cell in cells(spec):
        for values in product(*choices):
            chosen = hyperparameters(spec, cell, dict(zip(names, values, strict=True)))
            yield batch_ramp_of(chosen)


def describe_place(start: Start) -> list[str]:
    """What the checks could not look at, a sentence each."""
    if starts_here(start.address):
        return []
    where = start.address or os.environ.get("RAY_ADDRESS") or "the cluster on this machine"
    has = f"The CPUs and GPUs of the Ray cluster ({where})"
    return [f"{has} are known when the study joins it; a plan does not."]
