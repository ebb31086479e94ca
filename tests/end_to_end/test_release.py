"""The wheel works without the repository, by the command and in Python."""

import json
import random
import zipfile
from pathlib import Path

import pytest

from tests.end_to_end.installed import Installed, built, checked, copy_of_sources

SMALL = (
    "budget.examples=400", "budget.min_steps=10", "evaluation.every_examples=200",
    "search.num_trials=6", "scientific.global_batch_size=[8,32]", "transfer=null",
    "confirm.num_seeds=2",
)  # fmt: skip
IN_PYTHON = """
import scaling

if __name__ == "__main__":
    study = scaling.Study.read("reviews.yaml", {changes!r})
    print(study.plan())
    result = study.run()
    print(result.trials.groupby("phase").size().to_dict(), len(result.curves))
    print("in all:", scaling.load("in_python").summary["num_trials"])
    print(result.recommend()["reason"])
"""
WORDS = {"good": "great film with a fine cast", "bad": "dull plot and a poor cast"}


def write_reviews(file: Path) -> None:
    draw = random.Random(0)
    rows = ["text,label"]
    for number in range(300):
        label = draw.choice(list(WORDS))
        words = [*WORDS[label].split(), f"number{number}"]
        draw.shuffle(words)
        rows.append(f"{' '.join(words)},{label}")
    file.write_text("\n".join(rows), encoding="utf-8")


@pytest.mark.slow
def test_what_is_in_the_wheel(installed: Installed) -> None:
    names = zipfile.ZipFile(installed.wheel).namelist()
    assert "scaling/py.typed" in names
    for study in ("lr_vs_batch", "gallery/ladder"):
        assert any(name.endswith(f"share/scaling/studies/{study}.yaml") for name in names)
    assert not any(name.startswith(("tests/", "benchmarks/")) for name in names)
    [found] = [name for name in names if name.endswith("METADATA")]
    described = zipfile.ZipFile(installed.wheel).read(found).decode()
    assert "\nVersion: 0.1.0\n" in described  # the sources were copied without git
    for extra in ("lora", "deepspeed", "lightning"):
        assert f"Provides-Extra: {extra}" in described
    for version in ("3.11", "3.12", "3.13"):
        assert f"Classifier: Programming Language :: Python :: {version}" in described


def test_the_version_is_that_of_the_tag(tmp_path: Path) -> None:
    source = copy_of_sources(tmp_path / "source")
    name = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    for words in (
        ("init", "-q"), ("add", "-A"), (*name, "commit", "-qm", "all"), (*name, "tag", "v3.2.1"),
    ):  # fmt: skip
        checked("git", *words, folder=source)
    assert built(source, tmp_path / "dist").name == "scaling-3.2.1-py3-none-any.whl"


@pytest.mark.slow
@pytest.mark.ray
def test_from_a_table_of_texts_to_a_recipe(tmp_path: Path, installed: Installed) -> None:
    where = installed.call(
        "python", "-c", "import scaling; print(scaling.__file__)", folder=tmp_path
    )
    assert where.stdout.startswith(str(installed.folder))
    write_reviews(tmp_path / "reviews.csv")
    made = installed.call("scaling", "init", "--data", "reviews.csv", folder=tmp_path)
    assert "text_classification" in made.stdout
    changes = [word for change in SMALL for word in ("--set", change)]
    installed.call("scaling", "run", "reviews.yaml", *changes, folder=tmp_path)
    summary = json.loads((tmp_path / "reports/reviews/summary.json").read_text(encoding="utf-8"))
    assert summary["num_failed"] == 0
    recipe = installed.call("scaling", "report", "reviews", "--as", "hf", folder=tmp_path).stdout
    assert "TrainingArguments(" in recipe
    compile(recipe, "recipe.py", "exec")
    planned = installed.call("scaling", "plan", "noisy_quadratic", folder=tmp_path).stdout
    assert "search: 8 trials" in planned  # one that comes with the package

    script = IN_PYTHON.format(changes=[*SMALL, "name=in_python"])
    assert len(script.strip().splitlines()) <= 10
    (tmp_path / "ten_lines.py").write_text(script, encoding="utf-8")
    said = installed.call("python", "ten_lines.py", folder=tmp_path).stdout
    assert f"in all: {summary['num_trials']}" in said
    assert summary["recommendation"]["reason"].split(":")[0] in said
