"""cluster.yaml against Ray's own validation, offline, and the facts that a study relies on."""

from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def config() -> dict[str, Any]:
    """The file as `ray up` sees it: merged with the provider's defaults."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = prepare_config(yaml.safe_load((ROOT / "cluster.yaml").read_text(encoding="utf-8")))
    validate_config(prepared)
    return prepared


def head_and_worker(config: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    types = dict(config["available_node_types"])
    head = types.pop(config["head_node_type"])
    (worker,) = types.values()
    return head, worker


def test_workers_have_a_gpu_and_the_head_trains_nothing(config: dict[str, Any]) -> None:
    head, worker = head_and_worker(config)
    assert head["resources"] == {"CPU": 1}
    assert worker["resources"]["GPU"] == 1
    assert worker["node_config"]["InstanceType"].startswith(("g4dn.", "g5.", "g6."))
    assert not head["node_config"]["InstanceType"].startswith(("g", "p"))


def test_workers_are_there_when_a_study_starts(config: dict[str, Any]) -> None:
    _, worker = head_and_worker(config)
    assert 1 <= worker["min_workers"] <= worker["max_workers"] <= config["max_workers"]
    starts = [c for c in config["head_start_ray_commands"] if "ray start" in c]
    assert len(starts) == 1
    assert "RAY_enable_autoscaler_v2=0" in starts[0]
    assert "--autoscaling-config=~/ray_bootstrap_config.yaml" in starts[0]


def test_what_is_the_users_is_pinned_and_made_up(config: dict[str, Any]) -> None:
    for node_type in head_and_worker(config):
        assert node_type["node_config"]["ImageId"] == "ami-" + "0" * 17
        assert node_type["node_config"]["SecurityGroupIds"] == ["sg-" + "0" * 17]


def test_no_right_network_or_disk_is_left_to_a_default(config: dict[str, Any]) -> None:
    head, worker = head_and_worker(config)
    assert head["node_config"]["IamInstanceProfile"] == {"Name": "scaling-head"}
    assert "IamInstanceProfile" not in worker["node_config"]
    for node_type in (head, worker):
        node = node_type["node_config"]
        assert node["MetadataOptions"] == {"HttpTokens": "required", "HttpPutResponseHopLimit": 1}
        assert all(disk["Ebs"]["Encrypted"] is True for disk in node["BlockDeviceMappings"])


def test_the_stack_opens_ssh_to_one_address_and_grants_no_service_whole() -> None:
    class Loader(yaml.SafeLoader):
        """CloudFormation's !Ref and !Sub as plain text."""

    Loader.add_multi_constructor("!", lambda _, suffix, node: f"{suffix} {node.value}")
    text = (ROOT / "docs/aws_access.yaml").read_text(encoding="utf-8")
    stack = yaml.load(text, Loader)  # a SafeLoader
    resources = stack["Resources"]
    (ssh,) = resources["Nodes"]["Properties"]["SecurityGroupIngress"]
    assert ssh["CidrIp"] == "Ref SshFrom"
    assert stack["Parameters"]["SshFrom"]["AllowedPattern"].endswith("/32$")
    assert "CidrIp" not in resources["BetweenNodes"]["Properties"]
    (policy,) = resources["HeadRole"]["Properties"]["Policies"]
    for statement in policy["PolicyDocument"]["Statement"]:
        actions = statement["Action"]
        actions = [actions] if isinstance(actions, str) else actions
        assert not any("*" in action for action in actions)
        describes = all(action.startswith("ec2:Describe") for action in actions)
        assert describes or statement["Resource"] != "*"


def test_the_package_is_mounted_and_installed(config: dict[str, Any]) -> None:
    mounts = config["file_mounts"]
    local = {path for remote, path in mounts.items() if remote.startswith("~/scaling/")}
    assert {"scaling", "pyproject.toml", "constraints.txt", "README.md", "LICENSE"} <= local
    for path in local:
        assert (ROOT / path).exists(), path
    installs = [c for c in config["setup_commands"] if "install" in c]
    assert any('-e "$HOME/scaling[g2p,pos,treebank]"' in command for command in installs)
    assert any('"pip>=25.1"' in command for command in installs)


def test_nobody_gets_in_without_the_token(config: dict[str, Any]) -> None:
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    starts = config["head_start_ray_commands"] + config["worker_start_ray_commands"]
    assert all("RAY_AUTH_MODE=token" in command for command in starts)
    assert not any("--dashboard-host" in command for command in starts)


def test_idle_nodes_go_and_leave_no_disk(config: dict[str, Any]) -> None:
    assert 0 < config["idle_timeout_minutes"] <= 15
    assert config["provider"]["cache_stopped_nodes"] is False
