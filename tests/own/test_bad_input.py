"""What is wrong with code of one's own is said in one line, before a trial starts."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch

import scaling
from scaling.plan.start_checks import require_tasks
from scaling.spec.evaluation import Evaluation
from scaling.spec.issues import StudyFileError
from scaling.spec.read import study_from_mapping
from scaling.tasks.errors import DataError
from scaling.tasks.own.calling import own_code
from scaling.tasks.prepare import prepare_task
from tests.own.writing import custom, prepared, refused, section

RETURNED = {
    "nothing": ("def build(): pass", "returned None; allowed: a scaling.CustomTask"),
    "a dict": ("def build(): return {}", "returned of type dict; allowed: a scaling.CustomTask"),
    "no examples": ("def build(): return task(train=[])", "train has no examples"),
    "no held-out ones": ("def build(): return task(validation=[])", "validation has no examples"),
    "a mapping": (
        "def build(): return task(train={'train': points(9)})", "train is of type dict; allowed:",
    ),
    "a stream": (
        """
        class Stream(torch.utils.data.IterableDataset):
            def __iter__(self): yield from points(9)
        def build(): return task(train=Stream())
        """,
        "train is an IterableDataset, whose examples cannot be drawn by number",
    ),
    "a stream of datasets": (
        """
        import datasets
        def build(): return task(test=datasets.IterableDataset.from_generator(lambda: points(3)))
        """,
        "test is an IterableDataset",
    ),
    "a loader": (
        "def build(): return task(train=torch.utils.data.DataLoader(points(9)))",
        "train is a DataLoader; give its dataset, and its collate_fn as collate",
    ),
    "a model": ("def build(): return task(model=Net())", None),
    "no function": ("def build(): return task(losses=3)", "losses is of type int; allowed: a fun"),
    "metrics alone": (
        "def build(): return task(metrics=lambda model, batches: {'hits': 1.0})",
        "metrics needs directions",
    ),
    "directions alone": ("def build(): return task(directions={'a': 'maximize'})", "without metr"),
    "ranges alone": ("def build(): return task(ranges={'a': (0, 1)})", "given without metrics"),
    "a range of nothing": (
        "def build(): return task(metrics=lambda m, b: {}, directions={'hits': 'maximize'},"
        " ranges={'hit': (0, 1)})",
        r"ranges.hit: there is no such metric \(allowed: hits\)",
    ),
    "a range from above": (
        "def build(): return task(metrics=lambda m, b: {}, directions={'hits': 'maximize'},"
        " ranges={'hits': (1, 0)})",
        r"ranges.hits is \(1, 0\); allowed: the least and greatest value, null for an open end",
    ),
    "half a range": (
        "def build(): return task(metrics=lambda m, b: {}, directions={'hits': 'maximize'},"
        " ranges={'hits': 1})",
        "ranges.hits is 1; allowed: the least and greatest value",
    ),
    "a metric in percent": (
        "def build(): return task(metrics=lambda m, b: {'hits': 97.3},"
        " directions={'hits': 'maximize'}, ranges={'hits': (0, 1)})",
        r"hits is 97.3, outside its range \[0, 1\]",
    ),
    "another direction": (
        "def build(): return task(metrics=lambda m, b: {}, directions={'hits': 'up'})",
        "directions.hits is 'up'; allowed: maximize or minimize",
    ),
    "a name that is taken": (
        "def build(): return task(metrics=lambda m, b: {}, directions={'grad_norm': 'minimize'})",
        "grad_norm is measured already",
    ),
    "a name of what a trial comes to": (
        "def build(): return task(metrics=lambda m, b: {},"
        " directions={'generalization_gap': 'minimize'})",
        "generalization_gap is measured already",
    ),
    "a name of a measurement's error": (
        "def build(): return task(metrics=lambda m, b: {}, directions={'lr_stderr': 'minimize'})",
        "lr_stderr is measured already",
    ),
    "a metric that is missing": (
        "def build():\n"
        "    return task(metrics=lambda m, b: {'hit': 1.0}, directions={'hits': 'maximize'})",
        r"metrics raised ValueError: metrics returned no hits, which .* \(got: hit\)",
    ),
    "no parameters": (
        "def build(): return task(model=lambda seed: nn.Identity())",
        "Identity has no parameters to train",
    ),
    "one module for all": (
        "net = Net()\ndef build(): return task(model=lambda seed: net)",
        "returned a module that it had returned before; each trial needs one",
    ),
    "weights of another chance": (
        """
        import os
        def fresh(seed):
            torch.manual_seed(int.from_bytes(os.urandom(4), 'big'))
            return Net()
        def build(): return task(model=fresh)
        """,
        "model.seed. gives first.bias other values each time for the same seed",
    ),
    "frozen weights": (
        "def build(): return task(model=lambda seed: Net().requires_grad_(False))",
        "Net has no parameters to train",
    ),
    "a loss without a gradient": (
        "def build(): return task(losses=lambda m, b: [t.detach() for t in losses(m, b)])",
        "the loss depends on no weight that is trained",
    ),
    "one number": (
        "def build(): return task(losses=lambda m, b: losses(m, b)[0].mean())",
        "losses returned one number for 8 examples, as a mean over the batch is; return",
    ),
    "one number and a count": (
        "def build(): return task(losses=lambda m, b: (losses(m, b)[0].mean(), torch.ones(8)))",
        r"losses of shape \[\] for 8 examples \(a mean over the batch\? take reduction='none'\)",
    ),
    "losses of tokens": (
        "def build(): return task(losses=lambda m, b: (m(b[0]), torch.ones(8)))",
        r"losses returned losses of shape \[8, 3\] for 8 examples; allowed: \[8\]",
    ),
    "losses alone": (
        "def build(): return task(losses=lambda m, b: losses(m, b)[0])",
        r"losses returned Tensor; allowed: \(losses \[N\], counts \[N\]\)",
    ),
    "shares as counts": (
        "def build(): return task(losses=lambda m, b: (losses(m, b)[0], torch.full((8,), 0.5)))",
        "counts that are not whole numbers",
    ),
    "no targets": (
        "def build(): return task(losses=lambda m, b: (losses(m, b)[0], torch.zeros(8)))",
        "losses counts no targets in 8 examples",
    ),
    "NaN": (
        "def build(): return task(losses=lambda m, b: (m(b[0])[:, 0] * torch.nan, torch.ones(8)))",
        "the loss is nan before the first step",
    ),
    "NaN on held-out examples": (
        "def build(): return task(validation=[(x * torch.nan, y) for x, y in points(9)])",
        "the loss of validation is nan at the start",
    ),
    "a metric that is NaN": (
        "def build(): return task(metrics=lambda m, b: {'hits': float('nan')},"
        " directions={'hits': 'maximize'})",
        "the metric hits is nan at the start; it must be finite",
    ),
    "a lazy layer": (
        "def build(): return task(model=lambda seed: nn.Sequential(nn.LazyLinear(3)))",
        r"0.weight of Sequential has no shape yet \(a lazy layer\); give the layer its size",
    ),
    "a lazy layer's mean": (
        "def build(): return task(model=lambda seed: nn.Sequential(nn.LazyBatchNorm1d(affine=False"
        "), Net()))",
        "0.running_mean of Sequential has no shape yet",
    ),
    "a metric that is infinite": (
        "def build(): return task(metrics=lambda m, b: {'hits': torch.tensor(float('inf'))},"
        " directions={'hits': 'minimize'})",
        "the metric hits is inf at the start; it must be finite",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", RETURNED)
def test_a_factory_that_returns_what_cannot_be_trained(tmp_path: Path, case: str) -> None:
    source, match = RETURNED[case]
    refused(custom(tmp_path, source), match or "model.seed. raised TypeError")


def test_a_metric_that_a_few_examples_alone_leave_undefined_is_accepted(tmp_path: Path) -> None:
    prepared(
        custom(
            tmp_path,
            """
            def metrics(model, batches):
                count = sum(len(y) for _, y in batches)
                return {"hits": 1.0 if count > 8 else float("nan")}
            def build(): return task(metrics=metrics, directions={"hits": "maximize"})
            """,
        )
    )


def test_a_traceback_keeps_files_beside_the_package_whose_names_begin_alike() -> None:
    beside = compile("1 / 0", f"{Path(scaling.__file__).parent}_mine/metrics.py", "exec")
    with pytest.raises(DataError, match=r"\(metrics\.py, line 1\)") as raised, own_code("a", "b"):
        exec(beside, {})
    log = Path(str(raised.value).rpartition("traceback in ")[2])
    assert "scaling_mine/metrics.py" in log.read_text(encoding="utf-8")
    log.unlink()


def test_what_is_raised_is_said_by_its_last_line_with_the_traceback_kept(tmp_path: Path) -> None:
    workload = custom(
        tmp_path,
        """
        def rows():
            return {"x": 1}["label"]

        def build():
            return task(train=rows())
        """,
    )
    said = refused(workload, r"my_task:build raised KeyError: 'label' \(my_task\.py, line \d+\)")
    line = int(re.search(r"line (\d+)", said)[1])
    assert "label" in (tmp_path / "my_task.py").read_text().splitlines()[line - 1]
    log = Path(said.rpartition("traceback in ")[2])
    kept = log.read_text(encoding="utf-8")
    log.unlink()
    assert "in rows" in kept
    assert kept.strip().endswith("KeyError: 'label'")
    assert "scaling/tasks" not in kept


@pytest.mark.parametrize(
    ("source", "match"),
    [
        ("def build(:", r"importing my_task raised SyntaxError: .* \(my_task\.py, line \d+\)"),
        ("import not_there_at_all", "raised ModuleNotFoundError: No module named 'not_there_at_a"),
        ("import sys; sys.exit('no')", "importing my_task raised SystemExit: no"),
        (
            "def build(): return task(model=lambda seed: 1 / 0)",
            r"model\(seed\) raised ZeroDivisionError: division by zero",
        ),
        (
            "def build(): return task(losses=lambda m, b: m(b))",
            "losses raised TypeError: linear",
        ),
        (
            "def build(): return task(collate=lambda examples: examples[99])",
            "losses raised IndexError: list index out of range",
        ),
        (
            "def build(): return task(length=lambda example: example.size)",
            "raised AttributeError: 'tuple' object has no attribute 'size'",
        ),
    ],
)
def test_code_that_raises(tmp_path: Path, source: str, match: str) -> None:
    said = refused(custom(tmp_path, source), match)
    Path(said.rpartition("traceback in ")[2]).unlink()


@pytest.mark.parametrize(
    ("factory", "match"),
    [
        ("my_tsk:build", "there is no module my_tsk in .* or in the environment"),
        ("my_task:buld", "there is no buld in my_task; did you mean build?"),
        ("my_task:scaling", "there is nothing to call at scaling in my_task"),
    ],
)
def test_a_factory_that_is_not_there(tmp_path: Path, factory: str, match: str) -> None:
    custom(tmp_path)
    refused(section(tmp_path, factory=factory), match)


@pytest.mark.parametrize(
    ("options", "path", "match"),
    [
        ({"widht": 8}, "widht", r"my_task:build has no such option; did you mean width\?"),
        ({}, "width", "is required by my_task:build, which has no default"),
        ({"width": 8, "x": 1}, "x", r"has no such option \(allowed: width, depth\)"),
    ],
)
def test_options_are_those_of_the_factorys_signature(
    tmp_path: Path, options: dict[str, Any], path: str, match: str
) -> None:
    workload = custom(tmp_path, "def build(width, depth=2): return task()", options=options)
    refused(workload, match, f"workload.options.{path}")


def test_options_reach_the_factory_as_yaml_has_them(tmp_path: Path) -> None:
    source = """
    def build(sizes, rates, flag=False):
        assert (sizes, rates, flag) == ([1, 2], {"a": 0.5}, True), (sizes, rates, flag)
        return task()
    """
    prepared(custom(tmp_path, source, options={"sizes": [1, 2], "rates": {"a": 0.5}, "flag": True}))


STUDY: dict[str, Any] = {
    "name": "own", "question": "What is refused before any code is run?",
    "workload": {"task": "custom", "factory": "my_task:build"},
    "fixed": {"global_batch_size": 4, "peak_lr": 0.001}, "budget": {"steps": 1},
    "evaluation": {"every_steps": 1}, "search": {"trials_per_cell": 1},
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        (
            {"resources": {"strategy": "tp", "num_workers": 2}},
            r"resources\.strategy: custom has no plan of the matrices to cut .*: ddp, fsdp, z",
        ),
        (
            {"fixed": {**STUDY["fixed"], "dropout": 0.1}},
            r"fixed\.dropout: custom has no dropout that a study sets",
        ),
        (
            {"fixed": {**STUDY["fixed"], "label_smoothing": 0.1}},
            r"fixed\.label_smoothing: custom has a loss of its own",
        ),
        (
            {"workload": {"task": "custom", "factory": "my_task.py"}},
            r"workload\.factory: must be package\.module:name, as in my_task:build",
        ),
        (
            {"workload": {**STUDY["workload"], "model": {}}},
            r"workload\.model: is for task .*, not custom",
        ),
        (
            {"workload": {"task": "lightning", "module": "a:B", "datamodule_options": {"n": 1}}},
            r"workload\.datamodule_options: has no effect without workload\.datamodule",
        ),
    ],
)
def test_a_study_file_says_only_what_a_module_of_ones_own_can_do(
    changes: dict[str, Any], match: str
) -> None:
    assert study_from_mapping(STUDY).workload.task == "custom"
    with pytest.raises(StudyFileError, match=match) as raised:
        study_from_mapping(STUDY | changes)
    assert len(str(raised.value).splitlines()) == 1


def test_tokens_are_counted_where_examples_have_a_length(tmp_path: Path) -> None:
    custom(tmp_path)
    workload = {**STUDY["workload"], "folder": str(tmp_path)}
    spec = study_from_mapping(STUDY | {"workload": workload, "budget": {"tokens": 100}})
    growing = {"fixed": {**STUDY["fixed"], "batch_ramp_at_examples": [8]}}
    for changes in ({}, growing):
        given = STUDY | {"workload": workload, "budget": {"tokens": 100}} | changes
        with pytest.raises(DataError, match=r"budget\.tokens: examples have no tokens; give"):
            require_tasks(study_from_mapping(given))
    custom(tmp_path, "def build(): return task(length=lambda example: len(example[0]))")
    (task,) = require_tasks(spec)
    assert task.tokens_per_example == 4.0


def test_what_needs_blocks_or_every_weight_is_refused_by_name(tmp_path: Path) -> None:
    workload = custom(tmp_path)
    refused(
        workload, "needs blocks that can recompute their activations, and Net has none",
        "resources.activation_checkpointing", activation_checkpointing=True,
    )  # fmt: skip
    workload = custom(
        tmp_path,
        """
        class Idle(Net):
            def __init__(self):
                super().__init__()
                self.idle = nn.Linear(2, 2)
        def build(): return task(model=lambda seed: Idle())
        """,
    )
    prepared(workload)
    said = refused(workload, "takes no part in the loss", num_workers=2)
    assert "the weight idle.weight and 1 more" in said


def test_a_metric_that_goes_missing_later_is_that_trials_error(tmp_path: Path) -> None:
    workload = custom(
        tmp_path,
        """
        calls = []
        def scores(model, batches):
            calls.append(1)
            return {"hits": 1.0} if len(calls) == 1 else {}
        def build(): return task(metrics=scores, directions={"hits": "maximize"})
        """,
    )
    task = prepared(workload)
    with pytest.raises(ValueError, match=r"metrics returned no hits, .*\(got: none\)"):
        task.score(task.new_model(0).eval(), torch.device("cpu"))


def test_an_empty_test_split_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="test has no examples"):
        prepare_task(
            custom(tmp_path, "def build(): return task(test=points(0))"),
            Evaluation(every_steps=1),
        )
