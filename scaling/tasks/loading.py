"""What transformers builds and loads: none of it runs code of its own, and what fails is said."""

from collections.abc import Iterator
from contextlib import contextmanager

from scaling.files.shown_error import first_line
from scaling.tasks.errors import DataError


@contextmanager
def library_errors(path: str, what: str) -> Iterator[None]:
    """Say whatever transformers raises here as one line about a field of the study file.

    It has hundreds of architectures, which check their options as they please or not at all, so
    that a missing package, a division by zero and a failed assertion are all the same to a user.
    Hold nothing in this context but calls of the library.

    Args:
        path: Dotted path of the field that chose what is called.
        what: What did not work, as in `cannot build gpt2`.

    Raises:
        DataError: For any exception, which is its cause.
    """
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # see above
        raise DataError(path, f"{what}: {_said(error)}") from error


def _said(error: Exception) -> str:
    """An exception's first line, with what it is where that says little by itself."""
    line = first_line(error)
    if line.endswith(":") and error.__cause__ is not None:
        line = first_line(error.__cause__)  # of huggingface_hub's checks of a configuration
    is_plain = isinstance(error, ValueError | OSError | ImportError)
    return line if is_plain else f"{type(error).__name__}: {line}"


def require_no_custom_code(folder: str, name: str, path: str) -> None:
    """Check that a model or a tokenizer is one of transformers' own and brings no Python code.

    `auto_map` names classes in files beside the weights. transformers would ask on the terminal
    whether to run them, or take its own class of the same model type instead, which may compute
    something else.

    Args:
        folder: A folder or a name on the hub.
        name: The same, as the study file has it.
        path: Dotted path of the field that names it.

    Raises:
        DataError: If it has an `auto_map`, or its configuration cannot be read.
    """
    from transformers import PretrainedConfig
    from transformers.models.auto.tokenization_auto import get_tokenizer_config

    with library_errors(path, f"cannot load {name}"):
        try:
            config, _ = PretrainedConfig.get_config_dict(folder)
        except OSError:  # a folder with a tokenizer alone, or nothing, which its loading says
            config = {}
        found = {
            "config.json": config,
            "tokenizer_config.json": get_tokenizer_config(folder, trust_remote_code=False),
        }
    for file, options in found.items():
        if isinstance(options, dict) and options.get("auto_map"):
            raise DataError(
                path,
                f"{name} needs Python code of its own (auto_map in {file}), which is never run; "
                "allowed: models and tokenizers that transformers has itself, without auto_map",
            )
