"""The check that MLflow has everything."""

from dataclasses import replace

from scaling.records.study import StudyRecord
from scaling.sinks import missing_from
from scaling.spec.study import StudySpec
from tests.sinks.told import measurement, trial


def test_what_is_not_there_or_otherwise_is_missing(spec: StudySpec) -> None:
    same, absent, other_status = trial("a"), trial("b"), trial("c", status="stopped")
    shorter, fewer = trial("d", 4), trial("e")
    unevaluated = replace(measurement(40), validation_loss=None)
    fewer = replace(fewer, measurements=(*fewer.measurements[:-1], unevaluated))
    study = StudyRecord(spec, (same, trial("c"), shorter, fewer, trial("more")))

    ran = [trial("e"), trial("d"), same, absent, other_status]
    assert missing_from(study, ran) == ["e", "d", "b", "c"]
    assert missing_from(study, [same]) == []
