"""Python files of the user's own: where they are, what they import of each other, and importing.

A module is looked for in the study's folder first and in the environment after it. What a study
depends on is read from the import statements, so that it is known before anything is run, and the
same in every process.
"""

import ast
import importlib
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

from scaling.spec.issues import did_you_mean
from scaling.spec.own_training import OwnCode, TrainerFunctions
from scaling.tasks.errors import DataError
from scaling.tasks.own.calling import own_code

MAX_CODE_BYTES = 2_000_000
"""Of all files together: a study keeps them, to say what has changed."""
_loaded: dict[str, tuple[str, str]] = {}
"""File and SHA-256 of each module of the user's own that this process has imported."""
_folders: set[str] = set()
"""Of studies, in which this process has looked for modules."""


@dataclass(frozen=True)
class Code:
    """A module of the user's own.

    Attributes:
        root: The folder that its name begins in.
        is_study_folder: Whether that is the study's, whose modules are all the user's own; else
            those of the same top-level package are.
    """

    module: str
    root: Path
    is_study_folder: bool

    @classmethod
    def find(cls, module: str, folder: str | None, path: str) -> "Code":
        """Look in a folder, and in the environment.

        Raises:
            DataError: If there is no such module; `path` is the field that names it.
        """
        top = module.partition(".")[0]
        where = Path(folder or Path.cwd())
        if _files_of(where, top) or _files_of(where, *module.split(".")):
            return cls(module, where, is_study_folder=True)
        spec = _spec_in_environment(top)
        places = [Path(place) for place in (spec.submodule_search_locations or ())] if spec else []
        if spec is not None and spec.origin is not None and spec.origin.endswith(".py"):
            places = [Path(spec.origin).parent if places else Path(spec.origin)]
        if not places:
            raise DataError(path, f"there is no module {top} in {where} or in the environment")
        return cls(module, places[0].parent, is_study_folder=False)

    @cached_property
    def files(self) -> dict[str, str]:
        """The text of the module's file, and of those of its own that it imports, by path.

        Of an installed package it is the module's file alone: the rest has a version.
        """
        found: dict[str, str] = {}
        if self.root.name in ("site-packages", "dist-packages"):
            for file in _files_of(self.root, *self.module.split(".")):
                found[file.relative_to(self.root).as_posix()] = file.read_text("utf-8", "replace")
            return found
        wanted = [self.module]
        known = set(wanted)
        while wanted:
            for file in self._files_on_the_way(wanted.pop()):
                name = file.relative_to(self.root).as_posix()
                if name in found:
                    continue
                found[name] = file.read_bytes().decode("utf-8", "replace")
                new = set(_imports(found[name], name.split("/")[:-1])) - known
                known |= new
                wanted += sorted(new)
        return dict(sorted(found.items()))

    def _files_on_the_way(self, module: str) -> Iterator[Path]:
        """The files that an import runs: of the packages that it goes through, and its own."""
        parts = module.split(".")
        is_own = self.is_study_folder and parts[0] != "scaling"
        if not is_own and parts[0] != self.module.partition(".")[0]:
            return
        for number in range(1, len(parts) + 1):
            yield from _files_of(self.root, *parts[:number])

    def imported(self, path: str) -> Any:
        """The module, imported anew where this process knows another version of it.

        Raises:
            DataError: If it cannot be imported.
        """
        if self.is_study_folder:
            _search_first(self.root)
        now = {
            _module_of(name): (str(self.root / name), sha256(text.encode()).hexdigest())
            for name, text in self.files.items()
        }
        if any(_is_other(module, *version) for module, version in now.items()):
            for module in now:
                sys.modules.pop(module, None)
            importlib.invalidate_caches()
        _loaded.update(now)
        with own_code(path, f"importing {self.module}"), _without_bytecode():
            return importlib.import_module(self.module)


def imported(name: str, workload: OwnCode | TrainerFunctions, path: str) -> Any:
    """A function or class of the user's own, `package.module:name`.

    Raises:
        DataError: If it cannot be imported, or there is nothing callable of that name.
    """
    module_name, _, attribute = name.partition(":")
    module = Code.find(module_name, workload.folder, path).imported(path)
    found = getattr(module, attribute, None)
    if not callable(found):
        callables = [known for known, value in vars(module).items() if callable(value)]
        what = "there is no" if found is None else "there is nothing to call at"
        raise DataError(
            path, f"{what} {attribute} in {module_name}{did_you_mean(attribute, callables)}"
        )
    return found


def code_of(workload: Any) -> dict[str, str]:
    """The text of each file of the user's own that a workload takes code from, by path.

    Raises:
        DataError: If a module is not there, or the files are too large to keep.
    """
    files: dict[str, str] = {}
    for name in workload.own_code:
        files |= Code.find(name.partition(":")[0], workload.folder, "workload").files
    if sum(len(text.encode()) for text in files.values()) > MAX_CODE_BYTES:
        raise DataError(
            "workload", f"the Python files that it imports exceed {MAX_CODE_BYTES:,} bytes"
        )
    return files


def code_sha256(files: Mapping[str, str]) -> str:
    """SHA-256 of files and their names."""
    digest = sha256()
    for name, text in sorted(files.items()):
        digest.update(f"{name}\0{len(text)}\0{text}".encode())
    return digest.hexdigest()


def with_code(workload: Any, files: Mapping[str, str]) -> Any:
    """A workload whose code is that of these files: as it is, or from copies written here for it.

    Args:
        workload: Of any family.
        files: The text of each file, by path, as `code_of` gave them where the study started.
    """
    if not files:
        return workload
    with suppress(DataError):  # where a module is missing here
        if code_of(workload) == files:
            return workload
    folder = Path(tempfile.mkdtemp(prefix="scaling-code-"))
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return workload.model_copy(update={"folder": str(folder)})


def _files_of(root: Path, *parts: str) -> list[Path]:
    """The file of a module or package; none for a package without one, or no such module."""
    place = root.joinpath(*parts)
    candidates = (place / "__init__.py", place.with_name(f"{place.name}.py"))
    return [file for file in candidates if file.is_file()][:1]


@contextmanager
def _without_bytecode() -> Iterator[None]:
    """Leave no compiled file: Python takes it for current by the second and the size alone."""
    before = sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before


def _module_of(file: str) -> str:
    return ".".join(file.removesuffix(".py").removesuffix("/__init__").split("/"))


def _imports(text: str, package: list[str]) -> Iterator[str]:
    """Dotted names of all that a file imports, wherever in it; a name may be no module."""
    try:
        tree = ast.parse(text)
    except SyntaxError:  # which importing it says
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            yield from filter(None, [base, *(f"{base}.{a.name}".strip(".") for a in node.names)])


def _is_other(module: str, file: str, digest: str) -> bool:
    """Whether this process has imported the module from another file, or another text."""
    present = sys.modules.get(module)
    if present is None:
        return False
    there = getattr(present, "__file__", None)
    if there is None or Path(there).resolve() != Path(file).resolve():
        return True
    return _loaded.get(module, (file, digest)) != (file, digest)


def _spec_in_environment(top: str) -> ModuleSpec | None:
    """Where a top-level module is, but for folders of studies; whatever is imported already."""
    path = sys.path
    try:
        sys.path = [place for place in path if place not in _folders]
        specs = (finder.find_spec(top, None) for finder in sys.meta_path)
        return next((spec for spec in specs if spec is not None), None)
    finally:
        sys.path = path


def _search_first(folder: Path) -> None:
    """Let modules be looked for in a study's folder first, and in no other study's.

    A folder that was on the path already belongs to the environment, and stays there.
    """
    first = str(folder)
    if first not in sys.path:
        _folders.add(first)
    others = (place for place in sys.path if place not in _folders and place != first)
    sys.path[:] = [first, *others]
