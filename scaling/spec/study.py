"""What a study asks: the typed, frozen form of one YAML file."""

from collections.abc import Mapping
from functools import cached_property
from typing import Annotated, Any

from pydantic import Field

from scaling.spec.evaluation import Budget, Evaluation, Target
from scaling.spec.fields import LocalPath, Name, Section, Whole, given_fields
from scaling.spec.ladder import Ladder, Patch
from scaling.spec.patches import leaves_of, set_field
from scaling.spec.phases import (
    MAX_SURFACE_TRIALS,
    TO_TARGET,
    Branch,
    Confirm,
    Limits,
    Search,
    Transfer,
)
from scaling.spec.resources import Checkpoints, Resources
from scaling.spec.sections import CellRecipe, Fixed, Nuisance, Scientific
from scaling.spec.workloads import Workload


class StudySpec(Section):
    """One question and everything needed to answer it."""

    name: Name
    question: Annotated[str, Field(min_length=1)]
    seed: Annotated[int, Field(ge=0, lt=2**31, strict=True), Whole] = 0
    workload: Workload
    scientific: Scientific = Scientific()
    nuisance: Nuisance = Nuisance()
    fixed: Fixed = Fixed()
    ladder: Ladder | None = None
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
        """The URL that the state is kept at, without a / at its end; None for a local folder."""
        scheme, separator, path = (self.storage or "").partition("://")
        return f"{scheme}://{path.rstrip('/')}" if separator and scheme != "file" else None

    @property
    def confirms_target(self) -> bool:
        """Whether recipes for the target are confirmed beside those for the loss."""
        if self.confirm is None or self.target is None:
            return False
        if self.confirm.recipe_for_target is not None:
            return self.confirm.recipe_for_target
        is_searched = "global_batch_size" in self.nuisance.distributions()
        is_another = self.search.objective not in TO_TARGET
        return is_another and not is_searched and self.transfer is None

    def scientific_values(self) -> dict[str, tuple[Any, ...]]:
        """The scientific hyperparameters and their values, in the order of the schema."""
        given = given_fields(self.scientific)
        return {name: values for name, values in given.items() if values is not None}

    @cached_property
    def sizes(self) -> tuple["StudySpec", ...]:
        """The study at each size of its ladder, in the order of the file; none without one."""
        patches = self.ladder.sizes if self.ladder else ()
        return tuple(StudySpec.model_validate(self.patched(patch)) for patch in patches)

    @cached_property
    def predicted_sizes(self) -> tuple["StudySpec", ...]:
        """The study at each size that its ladder is asked to predict."""
        patches = self.ladder.predict if self.ladder else ()
        return tuple(StudySpec.model_validate(self.patched(patch)) for patch in patches)

    def patched(self, patch: Patch) -> dict[str, Any]:
        """What a file would say of the study at one size: an ordinary one, of as many trials.

        Raises:
            StudyFileError: If a path leads through something that is not a section or a list.
        """
        study: dict[str, Any] = self.model_dump(mode="json", exclude_unset=True)
        del study["ladder"]
        study["search"] = {"num_trials": MAX_SURFACE_TRIALS}
        for path, value in patch.items():
            set_field(study, path.split("."), value)
        return study

    def with_gpus(self, num_gpus: float) -> "StudySpec":
        """The study, and each size of a ladder, on a cluster of so many GPUs."""
        resources = self.resources.with_gpus(num_gpus, trains=self.workload.has_layers)
        if resources is self.resources:
            return self
        given = self.model_dump(mode="json", exclude_unset=True)
        given["resources"] = resources.model_dump(mode="json", exclude_unset=True)
        return StudySpec.model_validate(given)

    def at(self, cell: Mapping[str, Any]) -> "StudySpec":
        """The study at the size that a cell belongs to; this one where it has no ladder."""
        return self.sizes[self.size_of(cell)] if self.sizes else self

    def size_of(self, cell: Mapping[str, Any]) -> int:
        """Which size of the ladder a cell belongs to, by its place in the file."""
        labels = self.size_labels
        fits = [n for n, label in enumerate(labels) if label.items() <= cell.items()]
        return max(fits, key=lambda n: len(labels[n]))  # others' fields may be part of its own

    @cached_property
    def size_labels(self) -> tuple[dict[str, Any], ...]:
        """What a cell says of its size: its fields but for the batch sizes that it compares."""
        return tuple(
            dict(leaves_of(patch, but_for="scientific"))
            for patch in (self.ladder.sizes if self.ladder else ())
        )

    def batch_sizes(self) -> tuple[int, ...]:
        """Every global batch size that a trial of this study may have, rising."""
        if self.sizes:
            return tuple(sorted({batch for size in self.sizes for batch in size.batch_sizes()}))
        name = "global_batch_size"
        sizes: set[int] = {*self.scientific_values().get(name, ())}
        if name in (drawn := self.nuisance.distributions()):
            sizes |= {*(drawn[name].choice or ())}
        if (fixed := given_fields(self.fixed).get(name)) is not None:
            sizes.add(fixed)
        return tuple(sorted(sizes))
