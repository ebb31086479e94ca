"""Terms are linked to their meaning, and nothing else is."""

from scaling.report.words.glossary import Glossary, address
from scaling.report.words.terms import TERMS

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


def test_markup_in_a_text_stays_text() -> None:
    assert "<b>" not in GLOSSARY.explained("<b>cell</b>")


def test_every_term_of_the_report_finds_itself() -> None:
    glossary = Glossary(TERMS)
    for term, meaning in TERMS:
        for name in term.split(", "):
            assert glossary.meaning(name) == meaning
    assert len({address(term) for term, _ in TERMS}) == len(TERMS)
