"""Losses along trials of a study that has not ended."""

import math
from collections.abc import Sequence

import altair as alt

from scaling.records.metrics import Unit
from scaling.records.trial import TrialRecord
from scaling.report.charts.figures import Figure
from scaling.report.charts.style import chart, colour, count_x, dash, labels_of, styled, value_axis
from scaling.report.words.measurements import axis_title


def running_curves(records: Sequence[TrialRecord], loss_unit: Unit) -> str:
    """One line a trial, coloured and dashed by batch size, as SVG; empty without a loss."""
    points = [
        {
            "trial": record.trial_id,
            "batch": f"{record.recipe.hyperparameters.global_batch_size:,}",
            "examples": measurement.examples,
            "validation_loss": measurement.validation_loss,
        }
        for record in records
        for measurement in record.measurements
        if measurement.examples > 0
        if measurement.validation_loss is not None and math.isfinite(measurement.validation_loss)
    ]
    if not points:
        return ""
    labels = labels_of(points, "batch")
    values = [float(point["validation_loss"]) for point in points]
    lines = chart(points).mark_line(point=True, opacity=0.7)
    drawn = lines.encode(
        count_x("examples", [float(point["examples"]) for point in points]),
        alt.Y(
            "validation_loss:Q", title=axis_title("validation_loss", loss_unit),
            **value_axis(values),
        ),
        colour("batch", labels, "global_batch_size"),
        dash("batch", labels, "global_batch_size"),
        detail="trial:N",
    )  # fmt: skip
    title = "Validation loss along the trials that began last"
    return Figure("running", title, spec=styled(drawn, title, "")).svg()
