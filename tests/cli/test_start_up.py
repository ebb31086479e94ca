"""What a command loads, in a process of its own, and what a plan without a model takes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
QUADRATIC = str(ROOT / "studies" / "noisy_quadratic.yaml")
HEAVY = (
    "torch", "transformers", "datasets", "ray", "mlflow", "optuna", "lightning", "pandas", "altair",
    "scipy", "sklearn", "pyarrow", "numpy", "fsspec", "jinja2",
)  # fmt: skip
OF_A_MODEL = {"torch", "transformers", "numpy", "jinja2", "scipy"}
"""What transformers imports by itself; of scipy it is optimize alone."""


def loaded_by(script: str, folder: Path, *arguments: str) -> tuple[set[str], str]:
    """The libraries among HEAVY that a script has imported at its end, and what it printed."""
    found = f"print('loaded:', *({ {*HEAVY, 'scipy.stats'}!r} & set(sys.modules)))"
    ended = f"import sys\ntry:\n    {script}\nfinally:\n    {found}"
    done = subprocess.run(
        [sys.executable, "-c", ended, *arguments], cwd=folder, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    printed, _, found = done.stdout.rpartition("loaded:")
    return set(found.split()), printed


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("plan", QUADRATIC), "search: 8 trials"),
        (("status",), "no study keeps its state here"),
        (("--help",), "doctor"),
        (("run", "--help"), "Example: scaling run"),
        (("report", "--help"), "--from-csv"),
        (("doctor", "--help"), "doctor"),
    ],
    ids=lambda words: " ".join(Path(w).name for w in words) if isinstance(words, tuple) else "",
)
def test_a_command_loads_none_of_the_heavy_libraries(
    arguments: tuple[str, ...], says: str, tmp_path: Path
) -> None:
    found, printed = loaded_by("from scaling.cli.app import main; main()", tmp_path, *arguments)
    assert says in printed
    assert found == set()


def test_a_plan_with_a_model_loads_what_a_model_needs(tmp_path: Path) -> None:
    study = str(ROOT / "studies" / "lr_vs_batch.yaml")
    script = (
        "import gc; from scaling.cli.app import main\n    try: main()\n"
        "    finally: print('looked', gc.get_stats()[2]['collections'])"
    )
    smaller = ("--set", "scientific.global_batch_size=[8, 64]")
    found, printed = loaded_by(script, tmp_path, "plan", study, *smaller)
    assert "of training and evaluation on this machine" in printed
    assert found <= OF_A_MODEL
    assert "looked 0" in printed  # never through all that was loaded, which takes a second in all


def test_python_loads_none_of_them_to_read_and_to_plan(tmp_path: Path) -> None:
    plan = f"from scaling import Study; print(Study.read({QUADRATIC!r}).plan())"
    found, printed = loaded_by(plan, tmp_path)
    assert "search: 8 trials" in printed
    assert found == set()
    assert loaded_by("import scaling", tmp_path)[0] == set()


def test_results_are_read_without_torch_and_ray(tmp_path: Path) -> None:
    table = tmp_path / "sweep.csv"
    table.write_text(
        "global_batch_size,peak_lr,validation_loss\n8,0.1,2\n8,0.2,1\n8,0.4,3\n", encoding="utf-8"
    )
    script = f"import scaling; print(scaling.load({str(table)!r}).summary['answer'])"
    found, _ = loaded_by(script, tmp_path)
    assert not found & {"torch", "transformers", "datasets", "ray", "mlflow", "optuna"}


def test_a_plan_without_a_model_takes_a_few_times_as_long_as_its_parser(tmp_path: Path) -> None:
    def used(*words: str) -> float:
        """Processor seconds, the least of three, so that other work counts for little."""
        taken: list[float] = []
        for _ in range(3):
            before = os.times()
            subprocess.run([sys.executable, *words], cwd=tmp_path, capture_output=True, check=True)
            after = os.times()
            taken.append(
                after.children_user + after.children_system
                - before.children_user - before.children_system
            )  # fmt: skip
        return min(taken)

    plan = used("-c", "from scaling.cli.app import main; main()", "plan", QUADRATIC)
    # 0.42 s against 0.06 s on an idle machine; with torch 40 times as long.
    assert plan < 14 * used("-c", "import pydantic.main, typer")
