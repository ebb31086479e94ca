"""What a run refuses before its first trial, its plan refuses, and both leave nothing behind."""

import importlib.util
import random
import sqlite3
from pathlib import Path

import huggingface_hub.constants
import pytest
import torch
import yaml

from scaling.console import plain_console
from scaling.plan.start import Start
from scaling.plan.start_checks import require_tasks, start_notes
from scaling.plan.study_plan import print_plan
from scaling.spec.read import read_study
from scaling.study import main
from scaling.tasks.errors import DataError

STUDY = """
name: small
question: Is it refused before anything starts?
workload:
  task: text_classification
  model: {architecture: bert, hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 2}
  data: {files: {train: data.csv}, max_length: 32}
scientific: {global_batch_size: [8, 32]}
nuisance: {peak_lr: {log_uniform: [1.0e-4, 1.0e-2]}}
budget: {examples: 1000}
evaluation: {every_examples: 500}
search: {trials_per_cell: 2}
"""


@pytest.fixture(autouse=True)
def without_a_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a command of its own finds out itself: the hub's client here is imported already."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with a study and 400 rows, of which 320 are trained on."""
    rng = random.Random(0)
    rows = [f"{' '.join(rng.choices('abcd', k=5))} {n},{rng.choice('xyz')}\n" for n in range(400)]
    (tmp_path / "data.csv").write_text("text,label\n" + "".join(rows), encoding="utf-8")
    (tmp_path / "study.yaml").write_text(STUDY, encoding="utf-8")
    (tmp_path / "taken").touch()
    (tmp_path / "taken.db").write_text("no database " * 1000, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    return tmp_path


def everything_in(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*"))


REFUSED: dict[str, tuple[list[str], str]] = {
    "a missing column": (
        ["workload.data.text_column=sentence"],
        "workload.data.text_column: the train data have no column 'sentence'; they have: text",
    ),
    "more rows than there are": (
        ["workload.data.num_train=10000"],
        "workload.data.num_train: 10000 rows are asked for and 320 are there",
    ),
    "100 CPUs": (
        ["resources.num_workers=100", "scientific.global_batch_size=[100, 200]"],
        "one trial needs 100 workers of 1 CPUs and 0 GPUs",
    ),
    "a data set that is on no hub": (
        ["workload.data.files=null", "workload.data.source=hub:no/such-data"],
        "workload.data.source: cannot load no/such-data",
    ),
    "a model that is on no hub": (
        ["workload.model={pretrained: no/such-model}"],
        "no/such-model",
    ),
    "a tokenizer that is on no hub": (
        ["workload.data.tokenizer=no/such-tokenizer"],
        "no/such-tokenizer",
    ),
    "no such architecture": (
        ["workload.model.architecture=birt"],
        "workload.model.architecture: transformers has no architecture 'birt'",
    ),
    "a model larger than the memory": (
        ["workload.model.hidden_size=1048576"],
        "workload.model: ",
    ),
    "storage on no disk": (["storage=/proc/runs"], "storage: cannot write "),
    "storage in a file": (["storage=taken/runs"], "storage: cannot write taken/runs: taken is not"),
    "storage with a long name": ([f"storage={'x' * 300}/runs"], "File name too long"),
    "storage at a URL that cannot be written": (
        ["storage=local:///proc/runs"],
        "storage: cannot write local:///proc/runs",
    ),
    "a batch larger than the data": (
        ["scientific.global_batch_size=[8, 1024, 512]"],
        "scientific.global_batch_size: a step of 512, 1024 examples would repeat some of the 320 "
        "training examples (allowed: at most 320)",
    ),
    "a searched batch larger than the data": (
        ["scientific={}", "nuisance.global_batch_size.choice=[8, 321]"],
        "nuisance.global_batch_size: a step of 321 examples would repeat",
    ),
    "a batch that grows larger than the data": (
        ["fixed.batch_ramp_every_examples=400", "scientific.global_batch_size=[8, 128]",
         "budget.examples=2000"],
        "fixed.batch_ramp_every_examples: a step of 1024 examples would repeat",
    ),
    "a branch with a batch larger than the data": (
        ["branch={base_batch_size: 8, at_examples: [80], window_examples: 512, "
         "multiples: [1, 64]}"],
        "branch.multiples: a step of 512 examples would repeat",
    ),
    "a branch past the end": (
        ["budget={epochs: 1}", "branch={base_batch_size: 8, at_examples: [800], "
         "window_examples: 128}"],
        "branch.at_examples: 800 with a window of 128 examples passes the end",
    ),
    "an objective that the task does not measure": (
        ["search.objective=exact_match"],
        "search.objective: the task has no metric 'exact_match' (allowed: validation_loss, "
        "steps_to_target, examples_to_target, accuracy, macro_f1, mcc)",
    ),
    "a target that the task does not measure": (
        ["target={metric: test_loss, at_most: 0.5}"],
        "target.metric: the task has no metric 'test_loss' (allowed: validation_loss, accuracy, "
        "macro_f1, mcc)",
    ),
    "a target on the other side": (
        ["target={metric: accuracy, at_most: 0.5}"],
        "target.at_most: accuracy is one to maximize (got: 0.5); allowed: at_least",
    ),
    "more trials than any study has": (
        ["search.trials_per_cell=1000000000"],
        "search.trials_per_cell: makes 2,000,000,000 of the study's 2,000,000,000 trials",
    ),
}  # fmt: skip


def both(
    capsys: pytest.CaptureFixture[str], folder: Path, changes: list[str], *words: str
) -> tuple[str, str]:
    """What a plan and a run say on standard error, both having refused and left nothing."""
    before = everything_in(folder)
    sets = [word for change in changes for word in ("--set", change)]
    said: list[str] = []
    for plan in (["--plan"], []):
        assert main(["study.yaml", *sets, *words, *plan]) == 2
        said.append(capsys.readouterr().err)
        assert everything_in(folder) == before
    return said[0], said[1]


@pytest.mark.parametrize("kind", REFUSED)
def test_what_a_run_refuses_a_plan_refuses(
    folder: Path, capsys: pytest.CaptureFixture[str], kind: str
) -> None:
    changes, message = REFUSED[kind]
    plan, run = both(capsys, folder, changes)
    assert plan == run
    assert message in plan
    assert len(plan.splitlines()) == 1


LADDER = [
    "search={num_trials: 8}",
    "ladder.sizes=[{workload.model.hidden_size: 16, budget.examples: 1000}, "
    "{workload.model.hidden_size: 32, budget.examples: 2000}]",
]


@pytest.mark.parametrize(
    ("predicted", "message"),
    [
        ("workload.data.num_train: 100000", "data.num_train: 100000 rows are asked for and 320 "),
        ("workload.model.config: {hidden: 64}", "model.config"),
    ],
)
def test_what_is_predicted_is_looked_at_before_the_first_trial(
    folder: Path, capsys: pytest.CaptureFixture[str], predicted: str, message: str
) -> None:
    more = f"ladder.predict=[{{workload.model.hidden_size: 64, {predicted}}}]"
    plan, run = both(capsys, folder, [*LADDER, more])
    assert plan == run
    assert plan.startswith(f"ladder.predict.0.workload.{message}")
    with pytest.raises(DataError) as raised:
        require_tasks(read_study(folder / "study.yaml", [*LADDER, more]))
    assert raised.value.path.startswith("ladder.predict.0.workload.")


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan, run = both(capsys, folder, ["resources.gpus_per_worker=0.5"])
    assert plan == run
    assert "resources: one trial needs 1 workers of 1 CPUs and 0.5 GPUs" in plan


@pytest.mark.skipif(
    importlib.util.find_spec("deepspeed") is not None, reason="the extra is installed"
)
def test_an_extra_that_is_not_installed(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan, run = both(capsys, folder, ["resources.strategy=zero1"])
    assert plan == run
    assert "install it with" in plan


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("sqlite:////proc/mlflow.db", "cannot write MLflow's database /proc/mlflow.db"),
        ("sqlite:///taken/mlflow.db", "taken is not a folder"),
        ("sqlite:///taken.db", "file is not a database"),
        ("sqlite:///.", "is not a file"),
        ("file:///proc/mlruns", "cannot write MLflow's folder"),
        ("file:mlruns", "MLflow refuses the store file:mlruns, a folder"),
        ("localhost:5000", "MLflow refuses the store localhost:5000, a folder"),
        ("http://127.0.0.1:{port}", "cannot open MLflow at http://127.0.0.1"),
        ("postgresql+psycopg2://127.0.0.1:{port}/x", "cannot open MLflow at postgresql"),
        ("postgresql+nodriver://127.0.0.1:{port}/x", "cannot open MLflow at postgresql"),
        ("postgresql+psycopg2://127.0.0.1:port/x", "cannot open MLflow at postgresql"),
        ("nonsense://x", "cannot open MLflow at nonsense://x"),
        ("databricks-uc", "cannot open MLflow at databricks-uc: Detected Unity Catalog"),
    ],
)
def test_a_store_that_cannot_record(
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    free_port: int,
    uri: str,
    message: str,
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri.format(port=free_port))
    monkeypatch.setattr("scaling.sinks.mlflow.store._OPENING_PAUSES_SECONDS", (0.01, 0.01))
    plan, run = both(capsys, folder, [])
    assert plan == run
    assert message in plan
    assert "Traceback" not in plan


def test_a_report_that_cannot_be_written(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan, run = both(capsys, folder, [], "--output", "taken/report")
    assert plan == run
    assert plan == "--output: cannot write taken/report: taken is not a folder\n"


def test_a_report_at_a_url(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan, run = both(capsys, folder, [], "--output", "s3://bucket/report")
    assert plan == run
    assert plan.startswith("--output: s3:/bucket/report is a URL; name a folder on this machine")


@pytest.mark.parametrize("address", ["nonsense", "a b:1", "host:port", "tcp://a:1", ":6379"])
def test_an_address_that_is_none(
    folder: Path, capsys: pytest.CaptureFixture[str], address: str
) -> None:
    plan, run = both(capsys, folder, [], "--address", address)
    assert plan == run
    assert "is not the address of a Ray cluster; give HOST:PORT, auto or local" in plan


def test_a_plan_for_a_cluster_says_what_it_does_not_know(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = everything_in(folder)
    change = "resources.num_workers=4"
    assert main(["study.yaml", "--plan", "--address", "127.0.0.1:1", "--set", change]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "CPUs and GPUs of the Ray cluster (127.0.0.1:1) are known when the study joins" in said
    assert everything_in(folder) == before


def test_a_plan_of_a_study_that_exists(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from scaling.runner.state import StudyState
    from scaling.tasks.content import DATA

    spec = read_study(folder / "study.yaml")
    (task,) = require_tasks(spec)
    StudyState.open(spec, {DATA: task.content_hash}, {}).lock.close()
    plan, run = both(capsys, folder, [])
    assert plan == run
    assert "study small already exists in runs/small" in plan
    assert main(["study.yaml", "--plan", "--resume"]) == 0
    with (folder / "data.csv").open("a", encoding="utf-8") as file:
        file.write("new,x\n")
    plan, run = both(capsys, folder, [], "--resume")
    assert plan == run
    assert "the data of the study in runs/small have changed" in plan


def test_a_plan_shows_the_data_and_leaves_nothing(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = everything_in(folder)
    assert main(["study.yaml", "--plan"]) == 0
    rows = {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines() if line}
    assert rows["train"][1:4] == ["320", "320", "320"]
    assert rows["validation"][1:4] == ["40", "40", "40"]
    assert rows["test"][1:4] == ["40", "40", "40"]
    counts = [list(map(int, rows[f'"{name}"'][1:])) for name in "xyz"]
    assert [sum(split) for split in zip(*counts, strict=True)] == [320, 40, 40]
    assert rows["global_batch_size=8"][0:2] == ["global_batch_size=8", "0.0"]
    assert everything_in(folder) == before


def test_a_plan_shows_epochs(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["study.yaml", "--plan", "--set", "budget.examples=960"]) == 0
    [line] = [
        line for line in capsys.readouterr().out.splitlines()
        if line.split()[:1] == ["32"]
    ]  # fmt: skip
    assert line.split()[-3:] == ["30", "960", "3"]


def test_a_plan_makes_no_database(folder: Path) -> None:
    assert main(["study.yaml", "--plan"]) == 0
    assert not (folder / "mlflow.db").exists()
    with sqlite3.connect(folder / "mlflow.db") as other:
        other.execute("CREATE TABLE t (x)")
    other.close()
    content = (folder / "mlflow.db").read_bytes()
    before = everything_in(folder)
    assert main(["study.yaml", "--plan"]) == 0
    assert (folder / "mlflow.db").read_bytes() == content
    assert everything_in(folder) == before


@pytest.mark.usefixtures("folder")
def test_more_evaluated_examples_than_there_are_is_said(
    capsys: pytest.CaptureFixture[str],
) -> None:
    study = Path("study.yaml")
    changes = ["evaluation.num_examples=100", "evaluation.sharpness={num_examples: 1000}"]
    spec = read_study(study, changes)
    notes = start_notes(spec, require_tasks(spec)[0])
    assert notes[-3:] == [
        "validation is evaluated on all 40 examples (evaluation.num_examples: 100).",
        "test is evaluated on all 40 examples (evaluation.num_examples: 100).",
        "Sharpness is measured on all 320 training examples "
        "(evaluation.sharpness.num_examples: 1,000).",
    ]
    spec = read_study(study, ["evaluation.num_examples=40"])
    assert not [note for note in start_notes(spec, require_tasks(spec)[0]) if "evaluated" in note]
    spec = read_study(study, changes)
    print_plan(Start(spec, "", Path("reports")), require_tasks(spec), plain_console())
    assert notes[-1] in " ".join(capsys.readouterr().out.split())


@pytest.mark.slow
def test_every_field_of_a_plan_can_be_as_large_as_it_may(folder: Path) -> None:
    """None of these hangs, or takes memory without bound."""
    largest = 2**53
    study = yaml.safe_load(STUDY)
    study["scientific"] = {
        "weight_decay": [n / 1e4 for n in range(1000)],
        "beta1": [n / 1e2 for n in range(10)],
    }
    study["nuisance"]["global_batch_size"] = {"choice": [n + 1 for n in range(300)]}
    study["evaluation"] = {"growth_ratio": 1.1, "num_examples": largest}
    study["budget"] = {"examples": largest}
    (folder / "study.yaml").write_text(yaml.safe_dump(study), encoding="utf-8")
    for evaluation in ("{every_steps: 1}", "{every_examples: 1}", "{growth_ratio: 1.000000001}"):
        assert main(["study.yaml", "--plan", "--set", f"evaluation={evaluation}"]) == 2
    assert main(["study.yaml", "--plan"]) == 0


def listed(count: int, first: float = 0, step: float = 1) -> str:
    """So many values in a list."""
    return f"[{', '.join(f'{first + step * n:g}' for n in range(count))}]"


TOO_LARGE: list[tuple[str, str]] = [
    ("search.trials_per_cell", "9007199254740992"),
    ("confirm.num_seeds", "1000000000"),
    ("transfer.num_seeds", "100000"),
    ("branch.num_seeds", "1000000000"),
    ("workload.num_chains", "9007199254740992"),
    ("workload.num_dimensions", "1e9"),
    ("workload.model.num_hidden_layers", "9007199254740992"),
    ("workload.data.max_length", "9007199254740992"),
    ("nuisance.peak_lr.choice", listed(1001, 1e-5, 1e-5)),
    ("scientific", f"{{weight_decay: {listed(1000)}, beta1: {listed(99, 0, 0.01)}}}"),
    (
        "nuisance.batch_ramp_every_examples",
        f"{{choice: {listed(1000, 1)}}}\nnuisance.batch_ramp_factor={{choice: {listed(900, 2)}}}",
    ),
]
AROUND = {
    "transfer.num_seeds": ["transfer={base_batch_size: 8, rules: [none, sqrt]}"],
    "branch.num_seeds": ["branch={base_batch_size: 8, at_examples: [8], window_examples: 8}"],
    "workload.num_chains": ["workload={task: noisy_quadratic}"],
    "workload.num_dimensions": ["workload={task: noisy_quadratic}"],
    "nuisance.peak_lr.choice": ["nuisance.peak_lr={}"],
}
"""What a field needs around it."""


@pytest.mark.parametrize(("path", "value"), TOO_LARGE, ids=lambda part: part[:30])
def test_a_size_without_bound_is_refused_where_it_stands(
    folder: Path, capsys: pytest.CaptureFixture[str], path: str, value: str
) -> None:
    changes = [*AROUND.get(path, []), *f"{path}={value}".splitlines()]
    assert main(["study.yaml", "--plan", *(w for c in changes for w in ("--set", c))]) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{path}: ")


def test_generation_without_bound_is_refused(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = yaml.safe_load(STUDY)
    study["workload"] |= {
        "task": "seq2seq",
        "generation": {"num_beams": 10**6, "max_new_tokens": 10**9},
        "data": {"source": "builtin:grapheme_to_phoneme"},
    }  # fmt: skip
    (folder / "study.yaml").write_text(yaml.safe_dump(study), encoding="utf-8")
    assert main(["study.yaml", "--plan"]) == 2
    assert [line.partition(": ")[0] for line in capsys.readouterr().err.splitlines()] == [
        "workload.generation.max_new_tokens", "workload.generation.num_beams",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "output", "what"),
    [
        (["storage=out/state"], "out", "storage, out/state"),
        (["storage=out"], "out", "storage, out"),
        ([], ".", "storage, runs/small"),
        (["storage=/tmp/elsewhere-small"], ".", "MLflow's database, mlflow.db"),
    ],
)
def test_a_report_is_not_around_the_study(
    folder: Path, capsys: pytest.CaptureFixture[str], changes: list[str], output: str, what: str
) -> None:
    plan, run = both(capsys, folder, changes, "--output", output)
    assert plan == run
    assert f"--output: {output} would hold the study's {what}; name a folder" in plan
