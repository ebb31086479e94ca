"""Where code of one's own is found, and what belongs to it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from scaling.spec.own_training import Custom
from scaling.spec.read import read_study
from scaling.tasks.content import code_difference
from scaling.tasks.errors import DataError
from scaling.tasks.own.code import code_of, with_code
from scaling.tasks.prepare import prepare_task
from tests.own.writing import custom, section
from tests.recipes import EVALUATION

STUDY = {
    "name": "own", "question": "Where is the code?",
    "workload": {"task": "custom", "factory": "my_task:build"},
    "fixed": {"global_batch_size": 4, "peak_lr": 0.001}, "budget": {"steps": 1},
    "evaluation": {"every_steps": 1}, "search": {"trials_per_cell": 1},
}  # fmt: skip


def test_the_study_files_folder_is_where_code_is_looked_for_first(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(json.dumps(STUDY), encoding="utf-8")
    workload = read_study(tmp_path / "study.yaml").workload
    assert isinstance(workload, Custom)
    assert workload.folder == str(tmp_path)
    named = read_study(tmp_path / "study.yaml", ["workload.folder=/elsewhere"]).workload
    assert isinstance(named, Custom)
    assert named.folder == "/elsewhere"


def test_code_is_what_the_factory_imports_of_its_folder(tmp_path: Path) -> None:
    source = """
    import json
    from parts import layers
    def later():
        import parts.late
    """
    parts = tmp_path / "parts"
    parts.mkdir()
    for name, text in {
        "__init__": "", "layers": "from . import deep", "deep": "from .layers import x",
        "late": "import my_task", "unused": "",
    }.items():  # fmt: skip
        (parts / f"{name}.py").write_text(text, encoding="utf-8")
    files = code_of(custom(tmp_path, source))
    assert sorted(files) == [
        "my_task.py", "parts/__init__.py", "parts/deep.py", "parts/late.py", "parts/layers.py",
    ]  # fmt: skip


def test_code_of_the_environment_is_its_own_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(Path(__file__).parents[2])
    workload = section(tmp_path, factory="tests.own.conv_attention:build")
    files = code_of(workload)
    assert {"tests/__init__.py", "tests/own/__init__.py", "tests/own/conv_attention.py"} == set(
        files
    )
    assert prepare_task(workload, EVALUATION).num_train == 200


def test_a_studys_folder_that_is_on_the_path_stays_on_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library, elsewhere = tmp_path / "library", tmp_path / "elsewhere"
    library.mkdir()
    elsewhere.mkdir()
    monkeypatch.syspath_prepend(library)
    prepare_task(custom(library, "def build(): return task(train=points(10))"), EVALUATION)
    of_the_environment = section(elsewhere, factory="my_task:build")
    assert prepare_task(of_the_environment, EVALUATION).num_train == 10


def test_each_study_has_the_module_of_its_own_folder(tmp_path: Path) -> None:
    sizes: list[int | None] = []
    for count in (10, 20):
        folder = tmp_path / str(count)
        folder.mkdir()
        workload = custom(folder, f"def build(): return task(train=points({count}))")
        sizes.append(prepare_task(workload, EVALUATION).num_train)
    assert sizes == [10, 20]


def test_a_file_that_was_changed_is_imported_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within a second, and of the same size, as a compiled file would not tell."""
    monkeypatch.setattr(sys, "dont_write_bytecode", False)
    hashes: set[str] = set()
    for count in (10, 20, 10):
        workload = custom(tmp_path, f"def build(): return task(train=points({count}))")
        task = prepare_task(workload, EVALUATION)
        assert task.num_train == count
        hashes.add(task.content_hash)
    assert len(hashes) == 2


def test_the_content_is_of_code_and_of_examples_and_the_same_in_every_process(
    tmp_path: Path,
) -> None:
    source = "def build(seed=0): return task(train=points(40, seed))"
    first = prepare_task(custom(tmp_path, source), EVALUATION).content_hash
    others = [
        custom(tmp_path, source, options={"seed": 5}),
        custom(tmp_path, source + "  # a remark"),
    ]
    assert prepare_task(others[0], EVALUATION).content_hash != first
    assert prepare_task(others[1], EVALUATION).content_hash != first
    custom(tmp_path, source)
    program = (
        "import sys; from scaling.tasks.prepare import prepare_task\n"
        "from tests.recipes import EVALUATION; from tests.own.writing import section\n"
        "from pathlib import Path\n"
        "print(prepare_task(section(Path(sys.argv[1])), EVALUATION).content_hash)"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True
    )
    assert ran.stdout.strip() == first


def test_a_machine_without_the_folder_gets_the_files(tmp_path: Path) -> None:
    here = tmp_path / "here"
    here.mkdir()
    workload = custom(
        here, "from sizes import COUNT\ndef build(): return task(train=points(COUNT))"
    )
    (here / "sizes.py").write_text("COUNT = 7", encoding="utf-8")
    files = code_of(workload)
    task = prepare_task(workload, EVALUATION)
    assert with_code(workload, files) is workload
    here.rename(tmp_path / "gone")
    with pytest.raises(DataError, match="there is no module my_task"):
        prepare_task(workload, EVALUATION)
    elsewhere = with_code(workload, files)
    found = prepare_task(elsewhere, EVALUATION)
    assert found.num_train == 7
    assert found.content_hash == task.content_hash


def test_a_machine_with_another_module_of_that_name_gets_the_files(tmp_path: Path) -> None:
    source = "from sizes import COUNT\ndef build(): return task(train=points(COUNT))"
    workload = custom(tmp_path, source)
    (tmp_path / "sizes.py").write_text("COUNT = 7", encoding="utf-8")
    files = code_of(workload)
    (tmp_path / "sizes.py").write_text("COUNT = 9", encoding="utf-8")
    assert prepare_task(with_code(workload, files), EVALUATION).num_train == 7


def test_a_difference_names_lines_of_each_file() -> None:
    before = {"a.py": "x = 1\ny = 2\n", "gone.py": "z\n"}
    now = {"a.py": "x = 1\ny = 3\n", "new.py": "w\n"}
    shown = code_difference(before, now).splitlines()
    assert [line for line in shown if line[0] in "+-" and line[:3] not in ("+++", "---")] == [
        "-y = 2", "+y = 3", "-z", "+w",
    ]  # fmt: skip
    assert code_difference(before, before) == ""
    long = code_difference({"a.py": ""}, {"a.py": "x\n" * 500})
    assert long.splitlines()[-1].endswith("lines more")


def test_the_package_loads_no_torch_until_it_is_used() -> None:
    program = (
        "import sys, scaling; assert 'pydantic' not in sys.modules\n"
        "scaling.CustomTask; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
