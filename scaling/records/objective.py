"""What a recipe is tuned for, and which way it should go: the one place that orients a metric."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import assert_never

from scaling.records.measurement import Measurement
from scaling.records.metrics import Direction, Metric, Unit
from scaling.spec.evaluation import LOSS, Target
from scaling.spec.phases import TO_TARGET
from scaling.spec.study import StudySpec


def oriented(value: float, direction: Direction) -> float:
    """A metric as a cost, lower is better, or a cost as the metric: minus what is maximized."""
    match direction:
        case "maximize":
            return -value
        case "minimize":
            return value
        case _:
            assert_never(direction)


@dataclass(frozen=True, slots=True)
class Objective:
    """What is measured at the end of a run that makes its recipe better than another.

    Attributes:
        name: `validation_loss`, or a metric of the task or of a table.
        direction: Which way it should go, as whoever measures it declares.
        unit: Of its values.
        label: What it is called in sentences and on axes.
    """

    name: str = LOSS
    direction: Direction = "minimize"
    unit: Unit = "nats"
    label: str = "validation loss"

    @property
    def is_loss(self) -> bool:
        """Whether it is the validation loss itself."""
        return self.name == LOSS

    @property
    def unit_shown(self) -> str:
        """Its unit where that says more than its name, as nats does; not that a share is one."""
        return "" if self.unit == "fraction" else self.unit

    @property
    def regret_unit(self) -> str:
        """What differences are counted in: the unit of a loss, else the metric itself."""
        return self.unit if self.is_loss else self.label

    def value_of(self, measurement: Measurement) -> float | None:
        """Its value at an evaluation; None where it was not measured."""
        if self.is_loss:
            return measurement.validation_loss
        return measurement.metrics.get(self.name)

    def cost_of(self, measurement: Measurement) -> float | None:
        """The same as a cost, lower is better."""
        value = self.value_of(measurement)
        return None if value is None else self.oriented(value)

    def oriented(self, value: float) -> float:
        """A value as a cost, or a cost as a value."""
        return oriented(value, self.direction)


VALIDATION_LOSS = Objective()


def loss_unit(metrics: Mapping[str, Metric]) -> Unit:
    """Unit of a study's losses; of a record in which the task says nothing of it, nats."""
    return metrics[LOSS].unit if LOSS in metrics else VALIDATION_LOSS.unit


def objective_of(spec: StudySpec, metrics: Mapping[str, Metric]) -> Objective:
    """What recipes are compared by at the end of their runs.

    Of a search that counts steps or examples to a target it is the target's metric, by which
    trials that missed the target are ordered.

    Raises:
        LookupError: If nothing says which way the metric should go: a study starts with what its
            task says, so of a record that has lost it.
    """
    name = spec.search.objective
    if name in TO_TARGET:
        assert spec.target is not None
        return objective_of_target(spec.target, metrics)
    if name == LOSS:
        return replace(VALIDATION_LOSS, unit=loss_unit(metrics))
    known = metrics.get(name)
    if known is None or known.direction is None:
        raise LookupError(
            f"study {spec.name}: its record does not say whether {name} should be high or low"
        )
    return Objective(name, known.direction, known.unit, known.label)


def objective_of_target(target: Target, metrics: Mapping[str, Metric]) -> Objective:
    """The metric of a target, whose side says which way it should go."""
    if target.metric == LOSS:
        return replace(VALIDATION_LOSS, unit=loss_unit(metrics))
    direction: Direction = "minimize" if target.at_least is None else "maximize"
    known = metrics.get(target.metric)
    if known is None:
        return Objective(target.metric, direction, "", target.metric.replace("_", " "))
    return Objective(target.metric, direction, known.unit, known.label)
