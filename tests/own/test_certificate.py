"""A loss that depends on how a batch is cut is named, and trained on only where that is waived."""

from pathlib import Path
from typing import Any

import pytest

from scaling.tasks.errors import DataError
from tests.own.writing import custom, prepared, refused

DEPENDENT = {
    "batch norm": (
        """
        class Normed(Net):
            def __init__(self):
                super().__init__()
                self.norm = nn.BatchNorm1d(8)
            def forward(self, x):
                return self.second(self.norm(self.first(x)))
        def build(): return task(model=lambda seed: Normed())
        """,
        r"beside it \(its layer norm, a BatchNorm1d, normalizes over them\), so .*; take GroupNorm",
    ),
    "batch norm by a class of one's own": (
        """
        class Norm(nn.BatchNorm1d):
            pass
        class Normed(Net):
            def __init__(self):
                super().__init__()
                self.norm = Norm(8)
            def forward(self, x):
                return self.second(self.norm(self.first(x)))
        def build(): return task(model=lambda seed: Normed())
        """,
        r"its layer norm, a Norm, normalizes over them\), so .*; take GroupNorm",
    ),
    "batch norm beside dropout": (
        """
        class Normed(Net):
            def __init__(self):
                super().__init__()
                self.norm = nn.BatchNorm1d(8)
                self.drop = nn.Dropout(0.5)
            def forward(self, x):
                return self.second(self.drop(self.norm(self.first(x))))
        def build(): return task(model=lambda seed: Normed())
        """,
        "its layer norm, a BatchNorm1d, normalizes",
    ),
    "batch norm beside dropout by a function": (
        """
        class Normed(Net):
            def __init__(self):
                super().__init__()
                self.norm = nn.BatchNorm1d(8)
            def forward(self, x):
                h = functional.dropout(self.norm(self.first(x)), 0.5, self.training)
                return self.second(h)
        def build(): return task(model=lambda seed: Normed())
        """,
        "its layer norm, a BatchNorm1d, normalizes",
    ),
    "statistics of the batch in training": (
        """
        class Centred(Net):
            def forward(self, x):
                h = self.first(x)
                return self.second(h - h.mean(0) if self.training else h)
        def build(): return task(model=lambda seed: Centred())
        """,
        "depends on the examples beside it, so",
    ),
    "negatives from the batch": (
        """
        def contrast(model, batch):
            h = functional.normalize(model(batch[0]))
            return functional.cross_entropy(h @ h.T, torch.arange(len(h)), reduction="none"), \\
                torch.ones(len(h))
        def build(): return task(losses=contrast)
        """,
        "depends on the examples beside it, so .*; take no negatives or statistics",
    ),
    "a share of the mean": (
        """
        def shares(model, batch):
            each, counts = losses(model, batch)
            return each / len(each), counts
        def build(): return task(losses=shares)
        """,
        r"shrinks with the number of examples, as a mean over the batch does, so .*'none'",
    ),
    "places in the batch": (
        """
        def placed(model, batch):
            each, counts = losses(model, batch)
            half = torch.arange(len(each)) % 2
            return each * (1 + half), counts
        def build(): return task(losses=placed)
        """,
        "depends on its place in the batch, so",
    ),
    "chance": (
        """
        class Noisy(Net):
            def forward(self, x):
                return super().forward(x + torch.randn_like(x))
        def build(): return task(model=lambda seed: Noisy())
        """,
        "depends on chance in evaluation mode, so that .* draw at random only while self.training",
    ),
}


@pytest.mark.parametrize("case", DEPENDENT)
def test_a_loss_that_depends_on_the_cut_is_named_and_may_be_waived(
    tmp_path: Path, case: str
) -> None:
    source, match = DEPENDENT[case]
    said = refused(custom(tmp_path, source), match)
    assert said.endswith("or accept that with workload.exactness: waived")
    task = prepared(custom(tmp_path, source, exactness="waived"))
    [reason] = task.waived
    assert reason in said
    assert "waived" not in reason
    assert task.data_summary.waived == task.waived


EXACT = {
    "plain": "",
    "dropout": """
        class Dropping(Net):
            def forward(self, x):
                return self.second(functional.dropout(self.first(x), 0.5, self.training))
        def build(): return task(model=lambda seed: Dropping())
        """,
    "group norm and drop path": """
        class DropPath(nn.Module):
            def forward(self, x):
                return x * (torch.rand(len(x), 1) > 0.5) if self.training else x
        class Grouped(Net):
            def __init__(self):
                super().__init__()
                self.norm, self.drop = nn.GroupNorm(2, 8), DropPath()
            def forward(self, x):
                return self.second(self.drop(self.norm(self.first(x))))
        def build(): return task(model=lambda seed: Grouped())
        """,
    "a head that starts at zero": """
        class Zero(Net):
            def __init__(self):
                super().__init__()
                nn.init.zeros_(self.second.weight)
        def build(): return task(model=lambda seed: Zero())
        """,
    "a frozen backbone with batch norm": """
        class Frozen(Net):
            def __init__(self):
                super().__init__()
                self.body = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5))
                self.body.eval().requires_grad_(False)
            def forward(self, x):
                return self.second(functional.dropout(self.body(x), 0.5, self.training))
        def build(): return task(model=lambda seed: Frozen())
        """,
    "one training example": "def build(): return task(train=points(1))",
    "a dataset of torch": """
        def build():
            x, y = (torch.stack(list(map(torch.as_tensor, each))) for each in zip(*points(40)))
            return task(train=torch.utils.data.TensorDataset(x, y))
        """,
    "a dataset of Hugging Face": """
        import datasets
        def build():
            rows = [{"x": x.tolist(), "y": y} for x, y in points(40)]
            data = datasets.Dataset.from_list(rows)
            return task(train=data, validation=data.select(range(9)), collate=together)
        def together(rows):
            return torch.tensor([r["x"] for r in rows]), torch.tensor([r["y"] for r in rows])
        """,
}


@pytest.mark.parametrize("case", EXACT)
def test_a_loss_that_does_not_is_certified(tmp_path: Path, case: str) -> None:
    assert prepared(custom(tmp_path, EXACT[case])).waived == ()


def test_a_frozen_part_stays_in_evaluation_mode_and_a_trained_one_does_not(tmp_path: Path) -> None:
    source = (
        EXACT["a frozen backbone with batch norm"]
        + """
        class Pretrained(Frozen):
            def __init__(self):
                super().__init__()
                self.head = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5)).eval()
        def build(): return task(model=lambda seed: Pretrained())
        """
    )
    model: Any = prepared(custom(tmp_path, source)).new_model(0).eval().train()
    assert [layer.training for layer in model.module.body] == [False] * 3
    assert [layer.training for layer in model.module.head] == [True] * 2


def test_batch_norm_hidden_by_weights_of_zero_is_found(tmp_path: Path) -> None:
    source = DEPENDENT["batch norm"][0].replace(
        "self.norm = nn.BatchNorm1d(8)",
        "self.norm = nn.BatchNorm1d(8); nn.init.zeros_(self.second.weight)",
    )
    with pytest.raises(DataError, match="normalizes over them"):
        prepared(custom(tmp_path, source))
