"""What a plan says of a search by the surface."""

from scaling.search.proposals import limit_words, surface_search
from scaling.spec.study import StudySpec
from scaling.tasks.task import AnyTask, described


def rounds_words(spec: StudySpec, task: AnyTask, round_size: int) -> str:
    """How a search by the surface goes, and when it stops."""
    if spec.ladder is not None:
        return f"over all sizes, in rounds of {round_size} after a first design"
    first = surface_search(spec, round_size).num_in_design
    stop = f"; stops once {limit}" if (limit := limit_words(spec, described(task))) else ""
    return f"over all cells, {first} at first and then in rounds of {round_size}{stop}"
