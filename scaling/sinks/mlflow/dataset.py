"""What a study trains on, as MLflow shows it among the inputs of a run."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from scaling.spec.study import StudySpec

if TYPE_CHECKING:
    from mlflow.entities import DatasetInput

_DIGEST_LENGTH = 12
_CONTEXT = "mlflow.data.context"
_KINDS = {"hub": "hugging_face", "builtin": "builtin"}


def dataset_input(spec: StudySpec, environment: Mapping[str, Any]) -> "DatasetInput | None":
    """The data set of a study; None where the content of its data was not recorded.

    Its digest is the start of the content's SHA-256: two studies with one digest saw the same
    texts in the same splits.
    """
    from mlflow.entities import Dataset, DatasetInput, InputTag

    content = environment.get("data_sha256")
    if not isinstance(content, str) or not content:
        return None
    data = spec.workload.data
    name = data.origin if data else ", ".join(spec.workload.own_code) or spec.workload.task
    kind = name.partition(":")[0] if data and data.source else "code" if not data else "local"
    counts = {n: v for n, v in environment.items() if n.startswith(("num_train", "num_evaluated_"))}
    dataset = Dataset(
        name=name[:500],
        digest=content[:_DIGEST_LENGTH],
        source_type=_KINDS.get(kind, kind),
        source=json.dumps({"uri": name}),
        profile=json.dumps(counts),
    )
    return DatasetInput(dataset, [InputTag(_CONTEXT, "training")])
