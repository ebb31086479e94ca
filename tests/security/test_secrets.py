"""A credential in an address is refused where it would be kept, and never shown."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from scaling.files.shown_url import credential_problem, shown_url, without_credentials
from scaling.report.__main__ import main as report
from scaling.sinks import TrackingError
from scaling.sinks.mlflow.load import load_study
from scaling.sinks.mlflow.store import run_url
from scaling.spec.issues import StudyFileError
from scaling.spec.read import study_from_mapping
from tests.analysis.synthetic import spec
from tests.end_to_end.studies import QUADRATIC
from tests.sinks.told import open_sink

SECRET = "hunter2-s3cr3t"
PLACES = {
    f"s3://key:{SECRET}@bucket/x": "AWS_SECRET_ACCESS_KEY",
    f"s3://{SECRET}@bucket/x": "AWS_SECRET_ACCESS_KEY",
    f"s3://bucket/x?token={SECRET}": "AWS_SECRET_ACCESS_KEY",
    f"s3://bucket/x?a=1&X-Amz-Signature={SECRET}": "AWS_SECRET_ACCESS_KEY",
    f"gs://bucket/x?access_token={SECRET}": "GOOGLE_APPLICATION_CREDENTIALS",
    f"abfs://box:{SECRET}@account/x": "AZURE_STORAGE",
    f"abfs://box/x?sig={SECRET}": "AZURE_STORAGE",
    f"sftp://me:{SECRET}@host/x": "FSSPEC_SFTP_PASSWORD",
    f"simplecache::s3://key:{SECRET}@bucket": "AWS_SECRET_ACCESS_KEY",
    f"file:///tmp/x?password={SECRET}": "leave it out",
    f"runs/x?token={SECRET}": "leave it out",
    f"runs/x%3Fapi_key={SECRET}": "leave it out",
}


@pytest.mark.parametrize("place", PLACES)
def test_a_storage_with_a_credential_is_refused(place: str) -> None:
    with pytest.raises(StudyFileError) as refused:
        study_from_mapping(QUADRATIC | {"storage": place})
    assert "storage: must not carry a credential" in str(refused.value)
    assert PLACES[place] in str(refused.value)
    assert SECRET not in str(refused.value)


@pytest.mark.parametrize(
    "place",
    ["s3://bucket/a@b/c", "s3://bucket/x?versionId=3", "runs/a b", "runs/what?", "/tmp/key/token",
     "abfs://box@account.dfs.core.windows.net/x", "memory://x", "file:///tmp/a@b"],
)  # fmt: skip
def test_a_storage_without_one_is_not(place: str) -> None:
    assert credential_problem(place) is None


@pytest.mark.parametrize("field", ["question", "storage"])
def test_errors_of_other_fields_do_not_show_one(field: str) -> None:
    address = f"https://me:{SECRET}@host/x"
    broken: Any = [address] if field == "storage" else address
    with pytest.raises(StudyFileError) as refused:
        study_from_mapping(QUADRATIC | {field: broken, "seed": "x"})
    assert SECRET not in str(refused.value)
    assert field in str(refused.value)


@pytest.mark.parametrize("place", [p for p in PLACES if "::" not in p][:3])
def test_the_reports_command_refuses_one(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        report(["study", "--output", place])
    assert SECRET not in capsys.readouterr().err


def test_the_study_command_refuses_one_before_anything(tmp_path: Path) -> None:
    place = f"out?token={SECRET}"
    ran = subprocess.run(
        [sys.executable, "-m", "scaling.study", "none.yaml", "--output", place],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert ran.returncode == 2
    assert "--output: must not carry a credential" in ran.stderr
    assert SECRET not in ran.stdout + ran.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    "uri",
    [f"http://me:{SECRET}@127.0.0.1:9", f"http://127.0.0.1:9/?token={SECRET}",
     f"http://{SECRET}@127.0.0.1:9", f"postgresql://me:a@{SECRET}/b?@host/db"],
)  # fmt: skip
def test_mlflow_s_address_is_shown_without_one(uri: str, tmp_path: Path) -> None:
    assert SECRET not in shown_url(uri)
    assert SECRET not in run_url(uri, "1", "2")
    assert SECRET not in without_credentials(f"cannot open '{uri}', or {uri}.")
    if uri.startswith("http"):
        with pytest.raises(TrackingError) as refused:
            open_sink(spec(), uri, tmp_path)
        assert SECRET not in str(refused.value)
        with pytest.raises(TrackingError) as unread:
            load_study("x", uri)
        assert SECRET not in str(unread.value)


def test_an_address_without_one_is_shown_as_it_is() -> None:
    for uri in ("http://127.0.0.1:5000/a@b", "sqlite:////a/b@c.db", "https://[::1]:80/x", "runs/x"):
        assert shown_url(uri) == uri
