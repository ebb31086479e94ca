"""Sentences in columns, one word a line, as the CoNLL shared tasks have them.

Source: Tjong Kim Sang and De Meulder 2003 (arXiv:cs/0306050) sec. 2; of .conllu,
https://universaldependencies.org/format.html.
"""

from collections.abc import Iterator, Mapping

WORDS, TAGS = "tokens", "tags"
"""Names of the first column and the last one; each has its number as a name too, from 1."""
_DOCUMENT = "-DOCSTART-"


def sentences(name: str, lines: Iterator[str]) -> Iterator[Mapping[str, list[str]]]:
    """The columns of each sentence, which a blank line ends.

    Columns stand apart by tabs where the first line has one, else by blanks. Lines that begin with
    -DOCSTART- are left out. In .conllu so are comments, multiword tokens (1-2) and empty nodes
    (2.1), and words are the second column, since the first one numbers them.

    Raises:
        ValueError: If a line has another number of columns than the first one, fewer than two, or
            nothing in one of them.
    """
    is_universal = name.lower().removesuffix(".gz").endswith(".conllu")
    separator: str | None = None
    width = first = 0
    words: list[list[str]] = []
    for number, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith(_DOCUMENT):
            if words:
                yield _columns(words, is_universal)
            words = []
            continue
        if is_universal and line.startswith("#"):
            continue
        if not width:
            separator = "\t" if "\t" in line else None
        cells = line.split(separator)
        if not width:
            width, first = len(cells), number
            if width < 2:
                raise ValueError(f"line {number} has 1 column; needs a word and its tag")
        if len(cells) != width:
            count = f"{len(cells)} column{'s' * (len(cells) != 1)}"
            raise ValueError(f"line {number} has {count} and line {first} has {width}")
        cells = [cell.strip() for cell in cells]
        if "" in cells:
            raise ValueError(f"line {number} has nothing in column {cells.index('') + 1}")
        if not is_universal or cells[0].isdecimal():
            words.append(cells)
    if words:
        yield _columns(words, is_universal)


def _columns(words: list[list[str]], is_universal: bool) -> Mapping[str, list[str]]:
    columns = [list(column) for column in zip(*words, strict=True)]
    numbered = {str(number): column for number, column in enumerate(columns, start=1)}
    return {WORDS: columns[is_universal], TAGS: columns[-1], **numbered}
