"""Terms are linked to their meaning, and nothing else is."""

from scaling.report.words.glossary import Glossary, address
from scaling.report.words.measurements import ALL, term
from scaling.report.words.terms import CONCEPTS
from scaling.spec.workloads import Generation
from scaling.tasks.data.ragged import Ragged
from scaling.tasks.data.tokens import UnitTokenizer
from scaling.tasks.scores import ANSWER_METRICS, CLASS_METRICS, ENTITY_METRICS
from scaling.tasks.writing import Writing

GLOSSARY = Glossary((("cell", "One value."), ("steps to target, steps", "How long it takes.")))


def test_the_first_occurrence_of_a_term_is_a_link() -> None:
    text = str(GLOSSARY.explained("Cells & cells: a cellar."))
    assert text.count('href="#term-cell"') == 1
    assert text.startswith('<a class="term" href="#term-cell" title="One value.">Cells</a> &amp; ')
    assert text.endswith("cells: a cellar.")


def test_longer_terms_come_first_and_names_in_code_count() -> None:
    text = str(GLOSSARY.explained("steps_to_target"))
    assert text.count("<a ") == 1
    assert ">steps_to_target</a>" in text


def test_a_verb_is_no_term() -> None:
    rules = Glossary((("rule", "How a recipe is carried."),))
    assert "<a " not in rules.explained("The data rule out linear scaling.")
    assert "<a " in rules.explained("The data rule out one rule.")


def test_markup_in_a_text_stays_text() -> None:
    assert "<b>" not in GLOSSARY.explained("<b>cell</b>")


def test_every_term_of_the_report_finds_itself() -> None:
    writing = Writing(
        Generation(num_beams=2), UnitTokenizer({}), Ragged.of([[1]]), ("a",),
        has_phones=False, max_length=1,
    )  # fmt: skip
    written = writing.described_metrics
    metrics = {**ALL, **CLASS_METRICS, **ENTITY_METRICS, **ANSWER_METRICS, **written}
    shown = {name: metric for name, metric in metrics.items() if metric.table or name not in ALL}
    known = [*CONCEPTS, *(term(name, metric) for name, metric in shown.items())]
    glossary = Glossary(known)
    for names, meaning in known:
        for name in names.split(", "):
            assert glossary.meaning(name) == meaning
    assert len({address(names) for names, _ in known}) == len(known)
