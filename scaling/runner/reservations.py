"""What Ray keeps for a worker group, found again when the group is lost.

A placement group outlives the controller that made it for as long as the study runs. Ray Train has
an actor that removes it, which is told of it when the workers run: one whose controller is killed
before that would stay, and the next controller would wait for what it holds. So each carries the
name of its group in a condition that every machine fulfils.
"""

import logging
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup, remove_placement_group
from ray.util.state import list_placement_groups
from ray.util.state.exception import RayStateApiException

_LABEL = "scaling-group"
"""A label that no machine has."""
_MOST_LISTED = 10_000  # Ray lists no more
_LIST_SECONDS = 10

_LOG = logging.getLogger(__name__)


def label_selector(group: str) -> dict[str, str]:
    """The label selector of a worker group: any machine but one with its name."""
    return {_LABEL: f"!{group}"}


def release(group: str) -> None:
    """Remove what is reserved for a worker group, all of whose processes are gone.

    Ray's dashboard lists it. Where there is none, what Ray Train's own actor removes is removed.
    """
    try:
        listed: list[Any] = list_placement_groups(
            ray.get_runtime_context().gcs_address,  # of several Rays of a machine this one
            filters=[("state", "!=", "REMOVED")], detail=True, limit=_MOST_LISTED,
            timeout=_LIST_SECONDS, raise_on_missing_output=False,
        )  # fmt: skip
    except (RayStateApiException, ValueError, ConnectionError):
        _LOG.warning("Ray's dashboard does not say what is reserved for %s; it may stay", group)
        return
    for found in listed:
        selectors = [bundle.get("label_selector") for bundle in found.bundles or ()]
        if label_selector(group) in selectors:
            reserved = ray.PlacementGroupID(bytes.fromhex(found.placement_group_id))
            remove_placement_group(PlacementGroup(reserved))
