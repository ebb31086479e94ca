"""One trial: its recipe, how it ended, and all that was measured."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Final, Literal, cast

from pydantic import ConfigDict, TypeAdapter, ValidationError

from scaling.files.json_text import MAX_BYTES, parse_mapping
from scaling.records.measurement import Measurement
from scaling.records.recipe import Recipe, in_parts
from scaling.spec.phases import Phase

Status = Literal["running", "done", "stopped", "diverged", "failed"]
ENDED: tuple[Status, ...] = ("done", "stopped", "diverged", "failed")


@dataclass(frozen=True)
class TrialRecord:
    """One trial: its recipe, how it ended, and all that was measured.

    Attributes:
        trial_id: Unique in the study, and the same when the study is resumed.
        cell: The scientific values that this trial belongs to, as in {"global_batch_size": 64};
            empty when the study has no scientific axis.
        choices: The nuisance values that the search drew (or the rule carried over).
        rule: In the transfer and branch phases, the rule that made the rate; else None.
        status: `done` ran to its budget, `stopped` was ended early by the search, `diverged`
            blew up, `failed` raised an error.
        error: One line, for `failed`.
        incidents: What happened to it besides training, each with its `kind`: `restarted` (its
            workers were lost; with the attempt and why), `resumed` (from the checkpoint of a
            step), `out_of_memory` (with the micro_batch_size from there on), `checkpoint_failed`
            (with why; the run went on), `checkpoint_passed_over` (with its step and what is wrong
            with it), `model_not_kept` and `no_top_eigenvalue` (with why; the run is whole). In
            MLflow also `left_out`: how many there were at its place.
        measurements: By rising step.
        wall_seconds: From submission to the end.
        search_round: 0 in the ranges of the study file; 1 or 2 for a search trial beyond them.
        surface_round: In a search by the surface, the round that proposed it, from 0; else None.
        recipe_of: In the phases after the search, the search trial whose recipe this one repeats,
            carries or branches off, or the name of the recipe that the surface recommended; None
            where that was not recorded.
        scale: In a ladder, what makes the trial's size large, as in {"num_parameters": 1e6,
            "num_tokens": 2e7}; empty elsewhere.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")

    trial_id: str
    phase: Phase
    cell: Mapping[str, Any]
    choices: Mapping[str, Any]
    recipe: Recipe
    status: Status = "running"
    rule: str | None = None
    measurements: tuple[Measurement, ...] = ()
    error: str | None = None
    wall_seconds: float | None = None
    incidents: tuple[Mapping[str, Any], ...] = ()
    search_round: int = 0
    recipe_of: str | None = None
    surface_round: int | None = None
    scale: Mapping[str, float] = field(default_factory=dict[str, float])

    @property
    def final(self) -> Measurement | None:
        """The last measurement that has a validation loss; None before the first."""
        evaluated = (m for m in reversed(self.measurements) if m.validation_loss is not None)
        return next(evaluated, None)

    @property
    def best_validation_loss(self) -> float | None:
        """The lowest validation loss along the run, per target."""
        losses = [m.validation_loss for m in self.measurements if m.validation_loss is not None]
        return min(losses, default=None)

    def extended(self, measurements: Sequence[Measurement]) -> "TrialRecord":
        """This record with more measurements; a step measured before is kept as it was."""
        last = self.measurements[-1].step if self.measurements else -1
        new = tuple(m for m in measurements if m.step > last)
        return replace(self, measurements=self.measurements + new)

    def to_json(self) -> str:
        """One line of JSON, exact for every float."""
        return json.dumps(asdict(self), allow_nan=False)

    @classmethod
    def from_json(cls, line: str, *, max_bytes: int = MAX_BYTES) -> "TrialRecord":
        """The inverse of `to_json`.

        Raises:
            ValueError: If the line is not a record or larger, in one line that names the field.
        """
        raw = parse_mapping(line, max_bytes=max_bytes)
        recipe = raw.get("recipe")
        if isinstance(recipe, dict) and "hyperparameters" not in recipe:
            line = json.dumps(raw | {"recipe": in_parts(cast("dict[str, Any]", recipe))})
        try:
            return _FORM.validate_json(line, strict=True)
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            name = ".".join(map(str, first["loc"]))
            raise ValueError(f"{name}: {first['msg']}" if name else first["msg"]) from None


_FORM: Final = TypeAdapter(TrialRecord)
