"""On which machine the controller of a worker group runs."""

import pytest

from scaling.runner.controllers import controller_node


@pytest.mark.parametrize(("num_here", "rooms", "held", "node"), [
    (9, {"here": 2}, {"here": 8}, "here"),
    (9, {"here": 2}, {"here": 9}, "here"),  # nowhere else to go
    (9, {"here": 0, "a": 4}, {}, "here"),
    (9, {"here": 0, "a": 4, "b": 4}, {"here": 9}, "a"),
    (9, {"here": 0, "a": 4, "b": 4}, {"here": 9, "a": 1}, "b"),
    (9, {"here": 0, "a": 1, "b": 8}, {"here": 9, "b": 3}, "b"),
    (9, {"here": 0, "a": 0, "b": 8}, {"here": 9, "b": 30}, "b"),  # a trains nothing
    (0, {"here": 4, "a": 1}, {}, "a"),
    (9, {"here": 0}, {"here": 9, "gone": 3}, "here"),
])  # fmt: skip
def test_the_driver_s_machine_first_then_who_has_most_room(
    num_here: int, rooms: dict[str, int], held: dict[str, int], node: str
) -> None:
    assert controller_node("here", num_here, rooms, held) == node
