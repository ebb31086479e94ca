"""Terms of the report, explained where they are used: a title on hover, a link to the list."""

import re
from collections.abc import Sequence

from markupsafe import Markup, escape


class Glossary:
    """Finds the terms of a list in texts; the first occurrence in each text becomes a link.

    Args:
        terms: (term, meaning); a term of several names has commas between them.
    """

    def __init__(self, terms: Sequence[tuple[str, str]]) -> None:
        self._meanings = {
            name.lower(): (address(term), meaning)
            for term, meaning in terms
            for name in term.split(", ")
        }
        names = sorted(self._meanings, key=len, reverse=True)
        words = "|".join(re.escape(name).replace(r"\ ", r"[ _]") for name in names)
        # What is "ruled out" is no scaling rule.
        after = r"(?![\w/]| out\b)"
        self._pattern = re.compile(rf"(?<![\w/])(?:{words})(?:s?){after}", re.IGNORECASE)

    def explained(self, text: str) -> Markup:
        """The text with its terms as links."""
        seen: set[str] = set()
        parts: list[Markup] = []
        end = 0
        for found in self._pattern.finditer(text):
            entry = self._entry(found.group())
            if entry is None or entry[0] in seen:
                continue
            seen.add(entry[0])
            link = Markup('<a class="term" href="#{}" title="{}">{}</a>')
            parts += [escape(text[end : found.start()]), link.format(*entry, found.group())]
            end = found.end()
        return Markup("").join([*parts, escape(text[end:])])

    def meaning(self, text: str) -> str:
        """The meaning of the first term in a text; empty without one."""
        found = self._pattern.search(text)
        entry = self._entry(found.group()) if found else None
        return entry[1] if entry else ""

    def _entry(self, word: str) -> tuple[str, str] | None:
        for form in (word.lower(), word.lower().removesuffix("s")):
            for name in (form, form.replace("_", " ")):
                if name in self._meanings:
                    return self._meanings[name]
        return None


def address(term: str) -> str:
    """Where a term stands in the page."""
    return "term-" + re.sub(r"\W+", "-", term.lower()).strip("-")
