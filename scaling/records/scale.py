"""What makes a run large, by the names that records, tables and reports have for it."""

from collections.abc import Mapping, Sequence

NUM_PARAMETERS = "num_parameters"
WITHOUT_EMBEDDINGS = "num_parameters_without_embeddings"
NUM_TOKENS = "num_tokens"
NUM_EXAMPLES = "num_examples"


def scale_names(scales: Sequence[Mapping[str, float]]) -> tuple[str, ...]:
    """The numbers in which sizes differ, in the order in which they are recorded.

    Parameters count once, embeddings included.
    """
    names = dict.fromkeys(n for scale in scales for n in scale if n != WITHOUT_EMBEDDINGS)
    return tuple(name for name in names if len({scale.get(name) for scale in scales}) > 1)
