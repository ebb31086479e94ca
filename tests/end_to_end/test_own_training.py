"""A module of one's own leads to a report, as docs/your-own-training.md says."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import scaling
from tests.commands import run

pytestmark = pytest.mark.ray

PAGE = Path(__file__).parents[2] / "docs" / "your-own-training.md"


def section_of(title: str) -> str:
    """One part of the page."""
    return PAGE.read_text(encoding="utf-8").partition(f"## {title}\n")[2].partition("\n## ")[0]


def write_files(part: str, folder: Path) -> None:
    """The files that a part of the page names and shows."""
    for name, text in re.findall(r"^`(\S+)`:\n\n```\w+\n(.*?)```", part, re.DOTALL | re.MULTILINE):
        (folder / name).write_text(text, encoding="utf-8")


def commands_of(part: str) -> list[str]:
    blocks = re.findall(r"^```sh\n(.*?)```", part, re.DOTALL | re.MULTILINE)
    return [line for block in blocks for line in block.splitlines()]


def followed(title: str, folder: Path) -> Path:
    """Follow a part of the page in an empty folder, with a copy of the package installed there."""
    site, work = folder / "site", folder / "work"
    work.mkdir()
    shutil.copytree(
        Path(scaling.__file__).parent, site / "scaling",
        ignore=shutil.ignore_patterns("__pycache__"),
    )  # fmt: skip
    part = section_of(title)
    write_files(part, work)
    variables = {**os.environ, "PYTHONPATH": str(site)}
    variables["PATH"] = f"{Path(sys.executable).parent}:{variables['PATH']}"
    for command in commands_of(part):
        ran = subprocess.run(
            command, shell=True, cwd=work, env=variables, capture_output=True, text=True,
            check=False, timeout=500,
        )  # fmt: skip
        assert ran.returncode == 0, f"{command}\n{ran.stdout}\n{ran.stderr}"
    return work


def test_a_module_of_ones_own_leads_to_a_report(tmp_path: Path) -> None:
    work = followed("A module of your own", tmp_path)
    assert len((work / "my_task.py").read_text().splitlines()) < 60
    summary = json.loads((work / "reports/waves/summary.json").read_text())
    assert summary["num_failed"] == 0
    assert [cell["global_batch_size"] for cell in summary["cells"]] == [8, 32]
    for cell in summary["cells"]:
        # three classes: chance is log 3 = 1.1 nats and an accuracy of a third
        assert cell["test_loss"] < 1.0
        assert cell["metrics"]["accuracy"]["value"] > 0.5
        assert cell["grad_noise_scale"] is not None
    assert summary["metrics"]["accuracy"]["direction"] == "maximize"
    report = (work / "reports/waves/report.md").read_text()
    assert "accuracy" in report
    assert "waived" not in report


def test_a_lightning_module_leads_to_a_report(tmp_path: Path) -> None:
    pytest.importorskip("lightning")  # of the extra lightning
    work = followed("A LightningModule", tmp_path)
    summary = json.loads((work / "reports/net/summary.json").read_text())
    assert summary["num_failed"] == 0
    for cell in summary["cells"]:
        assert cell["validation_loss"] < 0.69  # log 2 is chance
        assert cell["metrics"]["accuracy"]["value"] > 0.5
    top = (work / "reports/net/report.md").read_text().partition("## Recommendation")[0]
    assert "taken as a mean over its examples" in top
    assert "configure_optimizers is not used" in top.replace("\\", "")


def test_a_study_goes_on_with_the_same_code_alone_and_says_what_it_waives(tmp_path: Path) -> None:
    write_files(section_of("A module of your own"), tmp_path)
    own = tmp_path / "my_task.py"
    normed = own.read_text().replace("nn.LayerNorm(width)", "nn.BatchNorm1d(32)")
    (tmp_path / "layers.py").write_text("WIDTH = 8\n", encoding="utf-8")
    own.write_text(normed.replace("import scaling", "import layers\nimport scaling"), "utf-8")
    study = ["study.yaml", "--set", "resources.num_workers=2", "--set", "search.trials_per_cell=1"]
    study += ["--set", "fixed.peak_lr=0.003", "--set", "nuisance={}"]
    refused = run(tmp_path, *study)
    assert refused.status == 2
    assert "BatchNorm1d norm normalizes over them" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    assert not (tmp_path / "runs").exists()

    study += ["--set", "workload.exactness=waived"]
    ran = run(tmp_path, *study)
    assert ran.status == 0, ran.stderr
    top = (tmp_path / "reports/waves/report.md").read_text().partition("## Recommendation")[0]
    assert "Exactness is waived: the loss of an example depends on the examples beside it" in top

    # the file that the factory imports counts too
    (tmp_path / "layers.py").write_text("WIDTH = 16\n", encoding="utf-8")
    study += ["--set", "confirm.num_seeds=3", "--resume"]
    changed = run(tmp_path, *study)
    assert changed.status == 2
    assert "-WIDTH = 8\n+WIDTH = 16" in changed.stderr
    assert "layers.py" in changed.stderr
    (tmp_path / "layers.py").write_text("WIDTH = 8\n", encoding="utf-8")
    again = run(tmp_path, *study)
    assert again.status == 0, again.stderr
