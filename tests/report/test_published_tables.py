"""Published sweeps go through `--from-csv` as they are, and the published numbers come out."""

import csv
import math
import time
from itertools import pairwise
from pathlib import Path

import pytest

from scaling.analysis.findings import Findings, analyse
from scaling.report.__main__ import main
from scaling.report.foreign_tables.sweep_table import read_table

# Zhang et al. 2024 (arXiv:2410.21676), steps to target at B = 64, 128, … 16384
ZHANG = {
    "85M": (46000, 23000, 13282, 7000, 3840, 2528, 1917, 1600, 1600),
    "151M": (96000, 49000, 24000, 12000, 7128, 4350, 2940, 2400, 2300),
    "604M": (311000, 166000, 81000, 37440, 21320, 11400, 7199, 4700, 3800),
}
CRITICAL = {"85M": (2191, 745), "151M": (3240, 955), "604M": (7907, 1889)}
"""b / a, and their own definition: 20% overhead against B = 256."""

# Li et al. 2025 (arXiv:2503.04715): `lr` × `bs` (sequences of 2,048 tokens), eight (N, D)
STEPLAW = next(
    (
        path
        for parent in Path(__file__).resolve().parents
        if (path := parent / "shared" / "data" / "steplaw_dense.csv").exists()
    ),
    None,
)
RENAME = (("bs", "global_batch_size"), ("lr", "peak_lr"), ("smooth loss", "validation_loss"))


@pytest.mark.parametrize("name", ZHANG)
def test_steps_to_target_of_three_models(name: str, tmp_path: Path) -> None:
    """b / a of the fit, and Zhang et al.'s own definition on the same fit."""
    path = tmp_path / f"{name}.csv"
    lines = [f"{64 * 2**i},{steps}" for i, steps in enumerate(ZHANG[name])]
    path.write_text("\n".join(["global_batch_size,steps_to_target", *lines]))
    table = read_table(path)
    fit = analyse(table.sweep).tradeoff
    ratio, with_20_percent = CRITICAL[name]
    assert fit.value == pytest.approx(ratio, abs=1)
    assert fit.interval is not None
    assert fit.interval[0] < ratio < fit.interval[1]
    assert fit.value is not None
    assert 0.2 * fit.value + 1.2 * 256 == pytest.approx(with_20_percent, abs=1)
    assert any("min_examples / min_steps" in note for note in table.notes)
    assert main(["--from-csv", str(path), "--output", str(tmp_path / "out")]) == 0


def cell(size: str, tokens: str) -> Findings:
    assert STEPLAW is not None
    return analyse(read_table(STEPLAW, rename=RENAME, where=[("N", size), ("D", tokens)]).sweep)


def cells() -> list[tuple[str, str]]:
    """The (N, D) of the published file, empty where it is not at hand."""
    if STEPLAW is None:
        return []
    with STEPLAW.open(encoding="utf-8") as file:
        return list(dict.fromkeys((row["N"], row["D"]) for row in csv.DictReader(file)))


@pytest.mark.slow
@pytest.mark.skipif(STEPLAW is None, reason="the published table is not at hand")
@pytest.mark.parametrize(("size", "tokens"), cells())
def test_every_cell_of_the_step_law(size: str, tokens: str, tmp_path: Path) -> None:
    """The best rate and batch lie within a factor of 2 of the law fitted to all of them.

    The law is η = 1.79 N^−0.713 D^0.307, B = 0.58 D^0.571 tokens. Grid steps are √2 in the rate
    and up to 2 in the batch, and the law is smooth where the grid's best is one noisy run.
    """
    started = time.process_time()
    arguments = ["--from-csv", str(STEPLAW), "--output", str(tmp_path)]
    for theirs, ours in RENAME:
        arguments += ["--rename", f"{theirs}={ours}"]
    arguments += ["--where", f"N={size}", "--where", f"D={tokens}"]
    assert main(arguments) == 0
    assert time.process_time() - started < 5
    found = [c for c in cell(size, tokens).cells if c.validation_loss.value is not None]
    best = min(found, key=lambda c: c.validation_loss.value or math.inf)
    assert best.best_peak_lr is not None
    assert best.global_batch_size is not None
    law_rate = 1.79 * float(size) ** -0.713 * float(tokens) ** 0.307
    law_batch = 0.58 * float(tokens) ** 0.571 / 2048
    assert abs(math.log2(best.best_peak_lr / law_rate)) < 1
    assert abs(math.log2(best.global_batch_size / law_batch)) < 1


@pytest.mark.slow
@pytest.mark.skipif(STEPLAW is None, reason="the published table is not at hand")
def test_more_tokens_want_a_larger_batch() -> None:
    """Of one model with two numbers of tokens, as in B = 0.58 D^0.571."""
    best: dict[tuple[str, float], int] = {}
    for size, tokens in cells():
        found = [c for c in cell(size, tokens).cells if c.validation_loss.value is not None]
        lowest = min(found, key=lambda c: c.validation_loss.value or math.inf)
        best[size, float(tokens)] = lowest.global_batch_size or 0
    for (size, _), (other, _) in pairwise(sorted(best)):
        if size == other:
            few, many = sorted(tokens for s, tokens in best if s == size)
            assert best[size, few] < best[size, many]
