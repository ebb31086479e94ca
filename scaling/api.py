"""Studies from Python: what a notebook or a script has instead of a command line."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scaling.console import plain_console
from scaling.driver.run import prepared, print_plan, run
from scaling.files.user_path import user_path
from scaling.plan.start import Start
from scaling.spec.read import read_study, study_from_mapping
from scaling.spec.shipped import study_file
from scaling.spec.study import StudySpec

if TYPE_CHECKING:
    from scaling.result import Result


class Study:
    """One question: a study file, read and checked.

    Attributes:
        spec: What the file says, frozen.
    """

    def __init__(self, **sections: Any) -> None:
        """A study from the sections of its file.

        Raises:
            StudyFileError: With every error that the sections have.
        """
        self.spec: StudySpec = study_from_mapping(sections)

    @classmethod
    def read(cls, path: str | Path, changes: Sequence[str] = ()) -> Study:
        """A study from its YAML file.

        Args:
            path: The file, or the name of a study that comes with the package.
            changes: `dotted.key=value` each, as the command line's --set.

        Raises:
            StudyFileError: With every error that the file has.
        """
        study = cls.__new__(cls)
        study.spec = read_study(Path(study_file(str(user_path(path)))), changes)
        return study

    def plan(self, *, resume: bool = False) -> str:
        """What the study would do: trials, batches, steps, data, memory and time, as text.

        Nothing is started. With `resume`, what is left of a study that was interrupted.

        Raises:
            RefusedError: If the study could not start.
        """
        start = Start(self.spec, "study.run()", self._output(None), resume=resume, is_plan=True)
        file = io.StringIO()
        print_plan(start, prepared(start), plain_console(file=file))
        return file.getvalue()

    def run(
        self, *, resume: bool = False, address: str | None = None, output: str | Path | None = None
    ) -> Result:
        """Run the study to its report, on this machine or on a Ray cluster.

        Progress is printed. Trials that failed are in the result, with the status `failed`.

        Args:
            resume: Go on with a study that was interrupted, or extend one that ended.
            address: Of a Ray cluster; this machine alone where left out.
            output: Folder of the report; reports/NAME where left out.

        Raises:
            RefusedError: If the study does not start.
            StoppedError: If it ended before its time; what has ended is kept.
        """
        from scaling.result import Result

        given = {"address": address, "output": None if output is None else str(output)}
        words = (f"{name}={value!r}" for name, value in given.items() if value is not None)
        command = f"study.run({', '.join(words)})"
        start = Start(self.spec, command, self._output(output), resume=resume, address=address)
        record, _ = run(start, prepared(start))
        return Result.of_study(record)

    def _output(self, output: str | Path | None) -> Path:
        return user_path(output) if output is not None else Path("reports") / self.spec.name

    def __repr__(self) -> str:
        return f"Study(name={self.spec.name!r}, question={self.spec.question!r})"
