"""A module of one's own leads to a report, as docs/how-to/own-module.md says."""

import json
import re
from pathlib import Path

import pytest

from tests.commands import run
from tests.end_to_end.installed import Installed

pytestmark = [pytest.mark.ray, pytest.mark.slow]

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "own-module.md"


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


def followed(title: str, work: Path, installed: Installed) -> Path:
    """Follow a part of the page word by word in an empty folder, with the wheel installed."""
    part = section_of(title)
    write_files(part, work)
    for command in commands_of(part):
        installed.call(command, folder=work, is_shell=True)
    return work


def test_a_module_of_ones_own_leads_to_a_report(tmp_path: Path, installed: Installed) -> None:
    work = followed("A module of your own", tmp_path, installed)
    lines = (work / "my_task.py").read_text(encoding="utf-8").splitlines()
    assert len(list(filter(None, lines))) <= 40
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


def test_a_lightning_module_leads_to_a_report(tmp_path: Path, installed: Installed) -> None:
    pytest.importorskip("lightning")  # of the extra lightning
    work = followed("A LightningModule", tmp_path, installed)
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
    assert "its layer norm, a BatchNorm1d, normalizes over them" in refused.stderr
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
