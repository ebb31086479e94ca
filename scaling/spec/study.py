"""What a study asks: the typed, frozen form of one YAML file."""

from typing import Annotated, Any

from pydantic import Field

from scaling.spec.evaluation import Budget, Evaluation, Target
from scaling.spec.fields import LocalPath, Name, Section, Whole, given_fields, items_of
from scaling.spec.phases import Branch, Confirm, Limits, Search, Transfer
from scaling.spec.resources import Checkpoints, Resources
from scaling.spec.sections import CellRecipe, Fixed, Nuisance, Scientific
from scaling.spec.workloads import Workload


class StudySpec(Section):
    """One question, and all it takes to answer it."""

    name: Name
    question: Annotated[str, Field(min_length=1)]
    seed: Annotated[int, Field(ge=0, lt=2**31, strict=True), Whole] = 0
    workload: Workload
    scientific: Scientific = Scientific()
    nuisance: Nuisance = Nuisance()
    fixed: Fixed = Fixed()
    cell_recipes: tuple[CellRecipe, ...] = ()
    budget: Budget
    evaluation: Evaluation
    target: Target | None = None
    search: Search
    transfer: Transfer | None = None
    confirm: Confirm | None = None
    branch: Branch | None = None
    recommendation: Limits = Limits()
    resources: Resources = Resources()
    checkpoints: Checkpoints | None = Checkpoints()
    """null: an interrupted trial starts again from its first step."""
    storage: LocalPath | None = None
    """Folder of the study's state; runs/NAME where left out. Or a URL that fsspec can write: the
    state is in runs/NAME and copied there every few seconds, and --resume on any machine goes on
    from it."""

    @property
    def storage_path(self) -> str:
        """Local folder of the study's state, relative to the working directory unless absolute.

        Of a study whose storage is a URL it is the working copy, runs/NAME.
        """
        if self.storage is None or self.storage_url is not None:
            return f"runs/{self.name}"
        return self.storage.removeprefix("file://")

    @property
    def storage_url(self) -> str | None:
        """The URL that the state is kept at; None for a local folder."""
        storage = self.storage or ""
        return storage if "://" in storage and not storage.startswith("file://") else None

    def scientific_values(self) -> dict[str, tuple[Any, ...]]:
        """The scientific hyperparameters and their values, in the order of the schema."""
        return {name: values for name, values in items_of(self.scientific) if values is not None}

    def batch_sizes(self) -> tuple[int, ...]:
        """Every global batch size that a trial of this study may have, rising."""
        name = "global_batch_size"
        sizes: set[int] = {*self.scientific_values().get(name, ())}
        if name in (drawn := self.nuisance.distributions()):
            sizes |= {*(drawn[name].choice or ())}
        if (fixed := given_fields(self.fixed).get(name)) is not None:
            sizes.add(fixed)
        return tuple(sorted(sizes))
