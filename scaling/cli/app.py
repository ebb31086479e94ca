"""The command `scaling`: init|run|plan|resume|report|compare|status|doctor|ui.

What a sub-command needs is imported when it is called, so that help is there at once.
"""

from pathlib import Path
from typing import Annotated, NoReturn

import typer

app = typer.Typer(
    name="scaling",
    help="How far can the batch of a Transformer grow, and what does it cost?",
    epilog="A study is one YAML file. Look first: scaling plan lr_vs_batch. Then: scaling run "
    "lr_vs_batch.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

_STUDY = Annotated[
    str,
    typer.Argument(
        metavar="STUDY", help="A study file, or the name of one that comes with the package.",
        autocompletion=lambda incomplete: _studies(incomplete),
    ),
]  # fmt: skip
_SET = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Change one value of the file; repeatable."),
]
_ADDRESS = Annotated[
    str | None, typer.Option(help="Ray cluster to join; this machine alone if left out.")
]
_OUTPUT = Annotated[
    str | None, typer.Option(metavar="DIR", help="Report folder; reports/NAME if left out.")
]
_URI = Annotated[
    str | None,
    typer.Option(help="MLflow store; MLFLOW_TRACKING_URI, else ./mlflow.db, if left out."),
]
_FORWARDED = {"allow_extra_args": True, "ignore_unknown_options": True}


@app.command(epilog="Example: scaling init --data reviews.csv")
def init(
    data: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            help="csv, tsv, json, jsonl, parquet, txt, conll, conllu; or .gz of all but parquet.",
        ),
    ],
    task: Annotated[
        str | None, typer.Option(help="Task family; guessed from the data if left out.")
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="Pretrained model; a small one from scratch if left out.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(metavar="FILE", help="The study file; DATA.yaml if left out.")
    ] = None,
) -> None:
    """Look at a table of data, and write a study file that runs on it."""
    import shlex
    from tempfile import TemporaryDirectory

    from scaling.cli.draft import TASKS, NoDraftError, drafted, require_runs, study_name, study_text
    from scaling.files.user_path import user_path
    from scaling.tasks.errors import DataError

    data = user_path(data)
    name = study_name(data)
    file = user_path(output or f"{name}.yaml")
    try:
        if task is not None and task not in TASKS:
            raise NoDraftError(f"--task: {task!r} is none of {', '.join(TASKS)}")
        if file.exists():
            raise NoDraftError(f"{file} exists already; name another file with --output")
        draft = drafted(data, task)
        text = study_text(draft, data, name, str(file), model)
        try:
            folder = TemporaryDirectory(prefix=".draft", dir=file.parent)
        except OSError as error:
            raise NoDraftError(f"--output: cannot write {file}: {error.strerror}") from error
        with folder:
            unproven = Path(folder.name, file.name)
            unproven.write_text(text, encoding="utf-8")
            require_runs(unproven)
            unproven.rename(file)
    except (NoDraftError, DataError, OSError) as error:
        typer.echo(str(error).splitlines()[0], err=True)
        _end(2)
    typer.echo(f"{file}: {draft.task}. {' '.join(draft.why)}")
    named = shlex.quote(str(file))
    typer.echo(f"look first: scaling plan {named}\nthen:       scaling run {named}")


@app.command(epilog="Example: scaling run studies/lr_vs_batch.yaml --set seed=1")
def run(
    study: _STUDY,
    changes: _SET = None,
    address: _ADDRESS = None,
    output: _OUTPUT = None,
    resume: Annotated[bool, typer.Option(help="Continue where an earlier run ended.")] = False,
) -> None:
    """Run a study to its report."""
    _study(study, changes, address, output, ["--resume"] * resume)


@app.command(epilog="Example: scaling plan lr_vs_batch")
def plan(
    study: _STUDY,
    changes: _SET = None,
    address: _ADDRESS = None,
    output: _OUTPUT = None,
    resume: Annotated[
        bool, typer.Option(help="Show what is left of an interrupted study.")
    ] = False,
) -> None:
    """Print what a study would do, and start nothing."""
    _study(study, changes, address, output, ["--plan", *["--resume"] * resume])


@app.command(epilog="Example: scaling resume studies/lr_vs_batch.yaml --set confirm.num_seeds=5")
def resume(
    study: _STUDY, changes: _SET = None, address: _ADDRESS = None, output: _OUTPUT = None
) -> None:
    """Go on with a study that was interrupted, or extend one that has ended."""
    _study(study, changes, address, output, ["--resume"])


@app.command(
    context_settings=_FORWARDED, add_help_option=False,
    epilog="Examples: scaling report lr_vs_batch; scaling report --from-csv sweep.csv",
)  # fmt: skip
def report(context: typer.Context) -> None:
    """Write a study's report from MLflow, or that of a table of runs from elsewhere."""
    from scaling.report.__main__ import main

    _end(main(context.args, program="scaling report"))


@app.command(epilog="Example: scaling compare lr_vs_batch reports/another")
def compare(
    a: Annotated[str, typer.Argument(help="A study's name, a report's folder or a table.")],
    b: Annotated[str, typer.Argument(help="The study to compare it with.")],
    output: Annotated[
        str | None,
        typer.Option(metavar="DIR", help="Folder of the page; reports/A_vs_B if left out."),
    ] = None,
    tracking_uri: _URI = None,
) -> None:
    """Compare two studies, and write a page about what sets them apart."""
    from scaling.report.__main__ import main

    words = ["--compare", a, b]
    words += ["--output", output] if output else []
    words += ["--tracking-uri", tracking_uri] if tracking_uri else []
    _end(main(words, program="scaling report"))


@app.command(epilog="Examples: scaling status runs; scaling status --address http://localhost:8265")
def status(
    folder: Annotated[Path, typer.Argument(help="Folder of the studies' state.")] = Path("runs"),
    address: Annotated[
        str | None, typer.Option(help="Dashboard of a Ray cluster to which studies were submitted.")
    ] = None,
) -> None:
    """Say where every study in a folder, or on a cluster, stands."""
    from scaling.cli.status import print_cluster_status, print_status

    _end(print_status(folder) if address is None else print_cluster_status(address))


@app.command(epilog="Example: scaling doctor")
def doctor() -> None:
    """Say what this machine can do, what is missing, and the line that mends it."""
    from scaling.cli.doctor import print_findings

    _end(print_findings())


@app.command(epilog="Example: scaling ui --port 5001")
def ui(
    studies: Annotated[
        list[str] | None,
        typer.Argument(metavar="[STUDY]…", help="Studies to link to; all if left out."),
    ] = None,
    tracking_uri: _URI = None,
    port: Annotated[
        int, typer.Option(help="Port of the server, which listens on this machine alone.")
    ] = 5000,
) -> None:
    """Start MLflow on the store of the studies, and print links that compare trials and studies."""
    import os
    import subprocess
    import sys

    from scaling.files.shown_url import mlflow_uri_words, shown_url
    from scaling.sinks import TrackingError, resolve_tracking_uri
    from scaling.sinks.mlflow.store import is_server
    from scaling.sinks.mlflow.views import comparison_links

    uri = resolve_tracking_uri(tracking_uri)
    is_running = is_server(uri)
    server = shown_url(uri).rstrip("/") if is_running else f"http://127.0.0.1:{port}"
    try:
        links = comparison_links(studies or (), uri, server)
    except (LookupError, TrackingError) as error:
        typer.echo(f"error: {error}", err=True)
        _end(2)
    for link in links:
        typer.echo(f"{link.label}\n  {link.url}")
    if is_running:
        typer.echo(f"MLflow is running already at {mlflow_uri_words(uri)}.")
        return
    typer.echo(f"MLflow on {mlflow_uri_words(uri)}: {server} (Ctrl-C ends it)")
    # For one reader: further workers and the runner of MLflow's jobs are ten more processes.
    words = ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    alone = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"} | os.environ
    alone["MLFLOW_BACKEND_STORE_URI"] = uri  # every user may read a command line, with passwords
    _end(subprocess.call([sys.executable, "-m", "mlflow", "ui", *words], env=alone))


def _study(
    study: str, changes: list[str] | None, address: str | None, output: str | None, more: list[str]
) -> None:
    from scaling.spec.shipped import study_file
    from scaling.study import main

    words = [study_file(study), *more]
    for change in changes or ():
        words += ["--set", change]
    words += ["--address", address] if address else []
    words += ["--output", output] if output else []
    _end(main(words, program=("scaling", "run")))


def _studies(incomplete: str) -> list[str]:
    """What STUDY may be, for the shell's completion: files here, and those of the package."""
    from scaling.spec.shipped import shipped_studies

    here = [str(path) for path in Path().glob(f"{incomplete}*") if path.suffix in (".yaml", "")]
    return here + [name for name in shipped_studies() if name.startswith(incomplete)]


def _end(status: int) -> NoReturn:
    raise typer.Exit(status)


def main() -> None:
    """The entry point."""
    app()
