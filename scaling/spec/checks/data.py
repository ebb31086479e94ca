"""Where a study's texts, model and state are: what the file system says of what the file says."""

# pyright: strict

import re
from collections.abc import Callable, Iterator, Sequence
from glob import glob
from os import R_OK, access
from pathlib import Path
from typing import Any, Final, cast

from scaling.files.shown_error import first_line
from scaling.files.shown_url import credential_problem
from scaling.spec.data import DATA_SUFFIXES, FileNames, Glob, TextData
from scaling.spec.fields import given_fields
from scaling.spec.issues import Issue, did_you_mean, dotted
from scaling.spec.models import BUILTIN_MODELS
from scaling.spec.study import StudySpec
from scaling.spec.workloads import BUILTIN_SOURCES, TextWorkload

_ADDRESS: Final = re.compile(r"[A-Za-z][A-Za-z0-9+.\-]*://\S+")


def data_issues(spec: StudySpec) -> Iterator[Issue]:
    """What is wrong with where the texts, the model and the tokenizer come from."""
    workload = spec.workload
    yield from workload.issues()
    if workload.data is None:
        return
    yield from _source(workload)
    yield from _without_use(workload.data)
    yield from _files(workload)
    if (name := workload.model.pretrained) is not None:
        yield from _folder("workload.model.pretrained", name)
        yield from _builtin_model(name)
    yield from _tokenizer(workload)
    if workload.data.tokenizer is not None:
        yield from _folder("workload.data.tokenizer", workload.data.tokenizer)


def _source(workload: TextWorkload) -> Iterator[Issue]:
    data = workload.data
    path = "workload.data.source"
    if (name := data.builtin_name) is not None and name not in workload.builtin_sources:
        if (tasks := BUILTIN_SOURCES.get(name)) is not None:
            message = f"is for task {' or '.join(tasks)}, not {workload.task}"
        else:
            message = f"there are no such data{did_you_mean(name, BUILTIN_SOURCES)}"
        fitting = ", ".join(f"builtin:{other}" for other in workload.builtin_sources)
        yield Issue(path, message, data.source, fitting)
    if not (data.source or "").startswith("hub:"):
        for field in ("subset", "hub_splits"):
            if value := getattr(data, field):
                yield Issue(f"workload.data.{field}", "belongs to a source hub:NAME", value)


def _without_use(data: TextData) -> Iterator[Issue]:
    """Fields that are given and have no say in this source."""
    if data.builtin_name is not None:
        why = {"column": "have no columns to choose", "names": "have names"}
        for name, value in given_fields(data).items():
            message = why.get(name.rpartition("_")[2])
            if value is not None and message is not None:
                yield Issue(f"workload.data.{name}", f"built-in data {message}", value)
    elif data.files is not None:
        yield from _columns_read_twice(data)
    if data.encoding is not None and data.files is None:
        yield Issue("workload.data.encoding", "belongs to files", data.encoding)
    elif data.encoding is not None and data.files is not None:
        given = (data.files.train, data.files.validation, data.files.test)
        names = [name for one in given if one is not None for name in named_files(one)]
        if names and all(file_suffix(name) == ".parquet" for name in names):
            yield Issue("workload.data.encoding", "belongs to text files", data.encoding)


def _columns_read_twice(data: TextData) -> Iterator[Issue]:
    """A column is one thing: nothing is predicted from itself, but a text by copying it."""
    fields_of: dict[str, str] = {}
    for name, column in data.columns.items():
        first = fields_of.setdefault(column, name)
        if first != name and {first, name} != {"source_column", "target_column"}:
            given = given_fields(data)
            wrong, right = (name, first) if name.split(".")[0] in given else (first, name)
            yield Issue(f"workload.data.{wrong}", f"names the same column as {right}", column)


def _builtin_model(name: str) -> Iterator[Issue]:
    kind, _, known = name.partition(":")
    if kind == "builtin" and known not in BUILTIN_MODELS:
        message = f"there is no such model{did_you_mean(known, BUILTIN_MODELS)}"
        allowed = ", ".join(f"builtin:{other}" for other in BUILTIN_MODELS)
        yield Issue("workload.model.pretrained", message, name, allowed)


def _tokenizer(workload: TextWorkload) -> Iterator[Issue]:
    """Subwords that drop blanks can be read but not written."""
    data, path = workload.data, "workload.data.tokenizer"
    if data.tokenizer == "subwords" and workload.writes_text:
        message = f"drops blanks, which task {workload.task} has to write"
        yield Issue(path, message, data.tokenizer, "characters, a folder or a hub name")
    if workload.model.pretrained is not None and data.tokenizer in ("characters", "subwords"):
        message = "numbers tokens anew, and a trained model's embeddings are of its own numbers"
        fitting = "null, the model's own, or a folder or hub name with its tokenizer"
        yield Issue(path, message, data.tokenizer, fitting)
    if data.tokenizer != "subwords" and "vocab_size" in given_fields(data):
        yield Issue("workload.data.vocab_size", "belongs to tokenizer subwords", data.vocab_size)


def _files(workload: TextWorkload) -> Iterator[Issue]:
    files = workload.data.files
    if files is None:
        return
    for split in ("train", "validation", "test"):
        given: FileNames | None = getattr(files, split)
        if given is None:
            continue
        path = f"workload.data.files.{split}"
        names = named_files(given)
        if isinstance(given, Glob) and not names:
            yield Issue(f"{path}.glob", "no file matches", given.glob)
        known: dict[Path, str] = {}
        for name in names:
            issues = list(_file(workload, path, name))
            yield from issues
            if not issues and (first := known.setdefault(Path(name).resolve(), name)) != name:
                yield Issue(path, f"is the same file as {first}", name)


def _file(workload: TextWorkload, path: str, name: str) -> Iterator[Issue]:
    suffix = file_suffix(name)
    if suffix not in DATA_SUFFIXES:
        allowed = f"{_any_of(DATA_SUFFIXES)}, and all but parquet with .gz"
        yield Issue(path, "is of an unknown kind", name, allowed)
    elif (reason := workload.unfit_files.get(suffix)) is not None:
        fit = [other for other in DATA_SUFFIXES if other not in workload.unfit_files]
        yield Issue(path, reason, name, _any_of(fit))
    if problem := _unreadable(name):
        yield Issue(path, problem, name)


def _any_of(suffixes: Sequence[str]) -> str:
    return f"*{', *'.join(suffixes)}"


def named_files(given: FileNames) -> tuple[str, ...]:
    """The files that a study file names for a split; those of a pattern in sorted order."""
    match given:
        case str():
            return (given,)
        case Glob():
            found = sorted(glob(given.glob, recursive=True))  # noqa: PTH207  # it may be absolute
            return tuple(name for name in found if _holds(Path.is_file, name))
        case _:
            return given


def is_gzip(name: str) -> bool:
    """Whether a file's name says that it is packed by gzip."""
    return name.lower().endswith(".gz")


def file_suffix(name: str) -> str:
    """The end of a file's name that says its kind, in lower case, without .gz; "" for none."""
    suffix = Path(name.lower().removesuffix(".gz")).suffix
    return "" if is_gzip(name) and suffix == ".parquet" else suffix


def _unreadable(name: str) -> str | None:
    """What keeps a local file from being read, relative to the working directory."""
    file = Path(name)
    try:
        if not file.exists():
            return f"there is no such file in {Path.cwd()}"
        if not file.is_file():
            return "is not a file"
        if not access(file, R_OK):
            return "may not be read"
        return None if file.stat().st_size else "is empty"
    except OSError as error:
        return f"cannot be read: {error.strerror}"


def _folder(path: str, name: str) -> Iterator[Issue]:
    """A name that can only be a folder must be one; any other may be a hub's."""
    if name.startswith(("/", "./", "../", "~")) and not _holds(Path.is_dir, name):
        yield Issue(path, "there is no such folder", name)


def credential_issues(spec: StudySpec) -> Iterator[Issue]:
    """Addresses with a user or a token in them: a study file is recorded and shown to others."""
    for path, text in _texts((), spec.model_dump(mode="json", exclude={"storage"})):
        if problem := next(filter(None, map(credential_problem, _ADDRESS.findall(text))), None):
            yield Issue(dotted(path), problem)


def _texts(path: tuple[str | int, ...], value: Any) -> Iterator[tuple[tuple[str | int, ...], str]]:
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        for key, inner in cast("dict[str, Any]", value).items():
            yield from _texts((*path, key), inner)
    elif isinstance(value, list):
        for index, inner in enumerate(cast("list[Any]", value)):
            yield from _texts((*path, index), inner)


def storage_issues(spec: StudySpec) -> Iterator[Issue]:
    """A place for the study's state that cannot be written, or tells a secret."""
    storage = spec.storage
    if storage is None:
        return
    if problem := credential_problem(storage):
        yield Issue("storage", problem)
        return
    if spec.storage_url is not None:
        if problem := _unusable(spec.storage_url):
            yield Issue("storage", problem, storage, "a folder, or a URL that fsspec can write")
    elif "\0" in storage:
        yield Issue("storage", "must be the path of a folder", storage)
    elif _holds(Path.is_file, spec.storage_path):
        yield Issue("storage", "is a file; must be the path of a folder", storage)


def _unusable(url: str) -> str | None:
    """What keeps fsspec from a URL: an unknown protocol, or one whose package is missing."""
    import fsspec  # pyright: ignore[reportMissingTypeStubs]

    try:
        fsspec.get_filesystem_class(url.partition("://")[0])  # pyright: ignore[reportUnknownMemberType]
    except (ValueError, ImportError) as error:
        return first_line(error)
    return None


def _holds(test: Callable[[Path], bool], name: str) -> bool:
    """What a test says of a path; False for one that the file system refuses."""
    try:
        return test(Path(name))
    except OSError:
        return False
