"""The RayJob manifest against the fields that KubeRay has, and what a study relies on there."""

import copy
import json
import re
import shlex
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).parents[1]
FIELDS = ROOT / "tests/data/kuberay_rayjob_fields.json"

Manifest = dict[str, Any]


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    """Of the fields that the manifest uses and of no others: what else it has, KubeRay drops."""
    return json.loads(FIELDS.read_text(encoding="utf-8"))["schema"]


@pytest.fixture
def manifest() -> Manifest:
    return yaml.safe_load((ROOT / "clusters/kuberay/rayjob.yaml").read_text(encoding="utf-8"))


@pytest.fixture
def cluster(manifest: Manifest) -> Manifest:
    return manifest["spec"]["rayClusterSpec"]


def container(group: Manifest) -> Manifest:
    (one,) = group["template"]["spec"]["containers"]
    return one


def test_its_fields_are_those_of_kuberay(manifest: Manifest, schema: dict[str, Any]) -> None:
    jsonschema.validate(manifest, schema)
    # Everything that is kept of the definition is used, and each rule can fail.
    misspelt = copy.deepcopy(manifest)
    misspelt["spec"]["backofLimit"] = 2
    missing = copy.deepcopy(manifest)
    del missing["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["groupName"]
    number = copy.deepcopy(manifest)
    number["spec"]["rayClusterSpec"]["headGroupSpec"]["rayStartParams"]["num-cpus"] = 0
    for wrong in (misspelt, missing, number):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(wrong, schema)


def test_every_start_resumes_from_a_bucket(manifest: Manifest) -> None:
    words = shlex.split(manifest["spec"]["entrypoint"])
    assert words[:3] == ["python", "-m", "scaling.study"]
    assert "--resume" in words
    study = Path(words[3]).relative_to("/home/ray/scaling")
    assert (ROOT / study).is_file()
    settings = dict(words[at + 1].split("=", 1) for at, word in enumerate(words) if word == "--set")
    assert settings["storage"].startswith("s3://")
    # As many groups as are asked for may be made.
    (workers,) = manifest["spec"]["rayClusterSpec"]["workerGroupSpecs"]
    assert int(settings["resources.max_slots"]) <= workers["maxReplicas"]


def test_it_is_tried_again_ends_and_leaves_nothing(manifest: Manifest) -> None:
    spec = manifest["spec"]
    assert spec["backoffLimit"] >= 1
    assert spec["activeDeadlineSeconds"] > 0
    assert spec["shutdownAfterJobFinishes"] is True
    assert 0 < spec["ttlSecondsAfterFinished"] <= 3600


def test_gpu_workers_start_at_none_and_no_trial_trains_on_the_head(cluster: Manifest) -> None:
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert "nvidia.com/gpu" not in container(cluster["headGroupSpec"])["resources"]["limits"]
    (workers,) = cluster["workerGroupSpecs"]
    assert workers["replicas"] == workers["minReplicas"] == 0 < workers["maxReplicas"]
    assert container(workers)["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert cluster["enableInTreeAutoscaling"] is True
    assert 0 < cluster["autoscalerOptions"]["idleTimeoutSeconds"] <= 900


def test_token_and_password_are_secrets(cluster: Manifest) -> None:
    assert cluster["authOptions"] == {"mode": "token", "secretName": "scaling-ray-token"}
    groups = [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]
    variables = [one for group in groups for one in container(group).get("env", [])]
    assert not any(one["name"].startswith("RAY_AUTH") for one in variables)
    secret = [one for one in variables if re.search("TOKEN|PASSWORD|KEY", one["name"])]
    assert [one["name"] for one in secret] == ["MLFLOW_TRACKING_PASSWORD"]
    assert all("value" not in one for one in secret)
    said = {one["name"]: one.get("value") for one in variables}
    assert said["MLFLOW_TRACKING_URI"].startswith("https://")


def test_one_image_with_rays_version_of_the_constraints(cluster: Manifest) -> None:
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    (version,) = re.findall(r"^ray==(.+)$", constraints, re.MULTILINE)
    assert cluster["rayVersion"] == version
    dockerfile = (ROOT / "clusters/kuberay/Dockerfile").read_text(encoding="utf-8")
    assert f"\nFROM rayproject/ray:{version}-py311\n" in dockerfile
    assert '-c constraints.txt ".[g2p,pos,treebank,s3]"' in dockerfile
    for sources in re.findall(r"^COPY --chown=ray (.+) \S+$", dockerfile, re.MULTILINE):
        for source in sources.split():
            assert (ROOT / source).exists(), source
    (workers,) = cluster["workerGroupSpecs"]
    image = container(cluster["headGroupSpec"])["image"]
    assert image == container(workers)["image"]
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'version = "{image.rpartition(":")[2]}"' in project
