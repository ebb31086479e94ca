"""Spot machines first, and others where AWS has none: how cluster.yaml's two GPU types are chosen.

Ray's autoscaler chooses a node type by its resources alone. Of types with the same resources it
takes the one whose name sorts last, and it asks for that type again, however often AWS refuses it.
This score puts types that AWS refused lately behind those that it did not. Ray forgets a refusal
after half an hour (AUTOSCALER_NODE_AVAILABILITY_MAX_STALENESS_S), and asks for spot again.

Ray loads it by the variable RAY_AUTOSCALER_UTILIZATION_SCORER, in its first autoscaler only.
"""

from typing import Any

from ray.autoscaler._private.node_provider_availability_tracker import NodeAvailabilitySummary
from ray.autoscaler._private.resource_demand_scheduler import _default_utilization_scorer


def score(
    node_resources: dict[str, float],
    resources: list[dict[str, float]],
    node_type: str,
    *,
    node_availability_summary: NodeAvailabilitySummary,
) -> tuple[Any, ...] | None:
    """How well a node type serves what is asked for; the highest one is launched.

    Args:
        node_resources: What one node of the type has.
        resources: What is asked for and has no place yet.
        node_type: Its name in cluster.yaml.
        node_availability_summary: Which types the cloud gave or refused when it was last asked.

    Returns:
        Whether the type was not refused lately, then Ray's own score; None where nothing that is
        asked for fits on the type.
    """
    by_resources = _default_utilization_scorer(
        node_resources, resources, node_type, node_availability_summary=node_availability_summary
    )
    if by_resources is None:
        return None
    last_launch = node_availability_summary.node_availabilities.get(node_type)
    return (last_launch is None or last_launch.is_available, *by_resources)
