"""The check that MLflow has everything."""

from dataclasses import replace

from scaling.records import StudyRecord
from scaling.spec import StudySpec
from scaling.tracking import missing_from
from tests.tracking.told import measurement, trial


def test_what_is_not_there_or_otherwise_is_missing(spec: StudySpec) -> None:
    same, absent, other_status = trial("a"), trial("b"), trial("c", status="stopped")
    shorter, other_number = trial("d", 4), trial("e")
    nudged = replace(measurement(40), grad_norm=0.5)
    other_number = replace(other_number, measurements=(*other_number.measurements[:-1], nudged))
    study = StudyRecord(spec, (same, trial("c"), shorter, other_number, trial("more")))

    ran = [trial("e"), trial("d"), same, absent, other_status]
    assert missing_from(study, ran) == ["e", "d", "b", "c"]
    assert missing_from(study, [same]) == []
