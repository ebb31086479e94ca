"""Sentences that are short enough to stand alone."""

MOST_WORDS = 30


def shortest(*sentences: str) -> str:
    """The first of several ways to say it that is one sentence of at most 30 words, or nothing.

    What a user named may be long, and hold a full stop of its own.
    """
    return next((s for s in sentences if len(s.split()) <= MOST_WORDS and ". " not in s), "")
