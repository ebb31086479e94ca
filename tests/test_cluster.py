"""The files of `ray up` against Ray's own validation, offline, and what a study relies on there.

What Ray asks AWS for is in tests/cluster/test_aws.py.
"""

import re
import subprocess
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[1]
FILES = ("cluster.yaml", "clusters/gcp.yaml", "clusters/local.yaml")
CLOUDS = FILES[:2]

Config = dict[str, Any]


@pytest.fixture(scope="module")
def configs() -> dict[str, Config]:
    """The files as `ray up` sees them: merged with the provider's defaults, and valid."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    prepared = {}
    for name in FILES:
        text = (ROOT / name).read_text(encoding="utf-8")
        prepared[name] = prepare_config(yaml.safe_load(text))
        validate_config(prepared[name])
    return prepared


@pytest.fixture
def aws(configs: dict[str, Config]) -> Config:
    return configs["cluster.yaml"]


@pytest.fixture(scope="module")
def stack() -> dict[str, Any]:
    """The resources of the CloudFormation stack that cluster.yaml needs."""

    class Loader(yaml.SafeLoader):
        """CloudFormation's !Ref, !Sub and !GetAtt as plain text."""

    Loader.add_multi_constructor("!", lambda _, suffix, node: f"{suffix} {node.value}")
    text = (ROOT / "docs/aws_access.yaml").read_text(encoding="utf-8")
    return yaml.load(text, Loader)["Resources"]  # a SafeLoader


def head_and_workers(config: Config) -> tuple[Config, dict[str, Config]]:
    types = dict(config["available_node_types"])
    return types.pop(config["head_node_type"]), types


def starts(config: Config, of: str) -> str:
    """The one command that starts Ray on the head, or on a worker."""
    (command,) = (c for c in config[f"{of}_start_ray_commands"] if "ray start" in c)
    return command


def variables(command: str) -> dict[str, str]:
    return dict(re.findall(r'\b([A-Za-z_0-9]+)="?([^\s;"]+)', command.partition("ray start")[0]))


def mlflow_server(config: Config) -> str:
    (command,) = (
        c for c in config["head_start_ray_commands"] if "mlflow" in c and "server --" in c
    )
    return command


def statements(*policies: Config) -> list[Config]:
    return [one for policy in policies for one in policy["PolicyDocument"]["Statement"]]


def actions(statement: Config) -> list[str]:
    named = statement["Action"]
    return [named] if isinstance(named, str) else named


# MLflow's own modules, when the first of its command lines is imported.
@pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning")
@pytest.mark.parametrize("name", FILES)
def test_every_command_is_one_that_its_shell_and_program_know(
    configs: dict[str, Config], name: str
) -> None:
    from mlflow.cli import server
    from ray.scripts.scripts import start

    config = configs[name]
    lists = [value for key, value in config.items() if key.endswith("_commands")]
    for command in (command for commands in lists for command in commands):
        checked = subprocess.run(["bash", "-n", "-c", command], capture_output=True, text=True)
        assert checked.returncode == 0, checked.stderr
    known = {option for parameter in server.params for option in parameter.opts}
    said = set(re.findall(r"\s(--[a-z-]+)", mlflow_server(config).partition(" server ")[2]))
    assert said <= known
    known = {option for parameter in start.params for option in parameter.opts}
    for of in ("head", "worker"):
        said = set(re.findall(r"\s(--[a-z-]+)", starts(config, of).partition("ray start")[2]))
        assert said <= known


@pytest.mark.parametrize("name", FILES)
def test_no_trial_trains_on_the_head(configs: dict[str, Config], name: str) -> None:
    config = configs[name]
    if name in CLOUDS:
        assert head_and_workers(config)[0]["resources"] == {"CPU": 0}
    else:  # Ray finds out what a machine has
        assert {"--num-cpus=0", "--num-gpus=0"} <= set(starts(config, "head").split())


@pytest.mark.parametrize("name", CLOUDS)
def test_workers_have_a_gpu_and_start_at_none(configs: dict[str, Config], name: str) -> None:
    config = configs[name]
    _, workers = head_and_workers(config)
    assert len(workers) == 2
    first, second = workers.values()
    assert first["resources"] == second["resources"] == {"CPU": 4, "GPU": 1}
    for worker in (first, second):
        assert worker["min_workers"] == 0
        assert 1 <= worker["max_workers"] <= config["max_workers"]
        machine = worker["node_config"].get("InstanceType") or worker["node_config"]["machineType"]
        assert machine in {"g5.xlarge", "g2-standard-4"}
    assert 0 < config["idle_timeout_minutes"] <= 15
    assert config["provider"]["cache_stopped_nodes"] is False


@pytest.mark.parametrize("name", FILES)
def test_the_first_autoscaler_reads_the_file_on_the_head(
    configs: dict[str, Config], name: str
) -> None:
    command = starts(configs[name], "head")
    assert variables(command)["RAY_enable_autoscaler_v2"] == "0"
    assert "--autoscaling-config=~/ray_bootstrap_config.yaml" in command


def asked_for(config: Config, *, gpus: int, refused: tuple[str, ...] = ()) -> dict[str, int]:
    """Which nodes Ray's autoscaler launches for so many groups of one GPU, with the head alone up.

    Args:
        config: The file, with the provider's defaults.
        gpus: How many groups are asked for.
        refused: The node types that the cloud had none of, a moment ago.
    """
    from ray.autoscaler._private.node_provider_availability_tracker import (
        NodeProviderAvailabilityTracker,
    )
    from ray.autoscaler._private.resource_demand_scheduler import (
        ResourceDemandScheduler,
        get_nodes_for,
    )
    from ray.autoscaler.node_launch_exception import NodeLaunchException

    types, head = config["available_node_types"], config["head_node_type"]
    tracker = NodeProviderAvailabilityTracker()
    for node_type in refused:
        error = NodeLaunchException("InsufficientInstanceCapacity", "none left", None)
        tracker.update_node_availability(node_type, int(time.time()), error)
    nobody: Any = None  # no provider is asked
    scheduler: Any = ResourceDemandScheduler(nobody, types, config["max_workers"], head, 1.0)
    scorer = partial(scheduler.utilization_scorer, node_availability_summary=tracker.summary())
    demands: list[Any] = [{"CPU": 1.0, "GPU": 1.0}] * gpus
    nodes, _ = get_nodes_for(types, {head: 1}, head, config["max_workers"], demands, scorer)
    return dict(nodes)


def test_spot_machines_first_and_others_where_there_are_none(
    aws: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    spot = aws["available_node_types"]["gpu_spot"]["node_config"]
    assert spot["InstanceMarketOptions"] == {"MarketType": "spot"}
    rented = aws["available_node_types"]["gpu_on_demand"]["node_config"]
    assert spot == rented | {"InstanceMarketOptions": {"MarketType": "spot"}}

    # As the head's monitor is started: its score is found where the file is mounted.
    said = variables(starts(aws, "head"))
    module, _, _ = said["RAY_AUTOSCALER_UTILIZATION_SCORER"].partition(".")
    folder = said["PYTHONPATH"].replace("$HOME", "~")
    mounted = ROOT / aws["file_mounts"][f"{folder}/{module}.py"]
    monkeypatch.syspath_prepend(mounted.parent)
    monkeypatch.setenv(
        "RAY_AUTOSCALER_UTILIZATION_SCORER", said["RAY_AUTOSCALER_UTILIZATION_SCORER"]
    )
    assert asked_for(aws, gpus=3) == {"gpu_spot": 3}
    assert asked_for(aws, gpus=3, refused=("gpu_spot",)) == {"gpu_on_demand": 3}
    assert asked_for(aws, gpus=3, refused=("gpu_spot", "gpu_on_demand")) == {"gpu_spot": 3}
    assert sum(asked_for(aws, gpus=100).values()) == aws["max_workers"]


def test_without_the_score_of_our_own_ray_asks_for_spot_again(aws: Config) -> None:
    assert asked_for(aws, gpus=3, refused=("gpu_spot",)) == {"gpu_spot": 3}


def test_rays_second_autoscaler_does_not_note_that_spot_was_refused() -> None:
    from ray.autoscaler.v2.instance_manager.subscribers.cloud_resource_monitor import (
        CloudResourceMonitor,
    )
    from ray.core.generated import instance_manager_pb2

    messages: Any = instance_manager_pb2

    def after(status: Any) -> dict[str, float]:
        event = messages.InstanceUpdateEvent(instance_type="gpu_spot", new_instance_status=status)
        monitor = CloudResourceMonitor()
        monitor.notify([event])
        return monitor.get_recoverable_resource_availabilities()

    assert after(messages.Instance.ALLOCATION_FAILED) == {}  # what a refused launch ends as
    assert after(messages.Instance.ALLOCATION_TIMEOUT) == {"gpu_spot": 0.0}


def test_google_cloud_gives_others_beyond_the_most_preemptible_ones(
    configs: dict[str, Config],
) -> None:
    config = configs["clusters/gcp.yaml"]
    types = config["available_node_types"]
    preemptible = types["gpu_preemptible"]["node_config"]["scheduling"]
    assert preemptible["provisioningModel"] == "SPOT"
    assert "provisioningModel" not in types["gpu_on_demand"]["node_config"]["scheduling"]
    assert asked_for(config, gpus=6) == {"gpu_preemptible": 6}
    assert asked_for(config, gpus=8) == {"gpu_preemptible": 6, "gpu_on_demand": 2}


def test_what_is_the_users_is_made_up(aws: Config, configs: dict[str, Config]) -> None:
    for node_type in aws["available_node_types"].values():
        assert node_type["node_config"]["ImageId"] == "ami-" + "0" * 17
        assert node_type["node_config"]["SecurityGroupIds"] == ["sg-" + "0" * 17]
    assert configs["clusters/gcp.yaml"]["provider"]["project_id"] == "your-project"
    local = configs["clusters/local.yaml"]["provider"]
    # Addresses for documentation (RFC 5737), which nobody has.
    assert all(ip.startswith("192.0.2.") for ip in [local["head_ip"], *local["worker_ips"]])


def test_no_right_or_network_on_google_cloud_is_left_to_a_default(
    configs: dict[str, Config],
) -> None:
    gcp = configs["clusters/gcp.yaml"]
    for name, node_type in gcp["available_node_types"].items():
        (account,) = node_type["node_config"]["serviceAccounts"]
        who = "head" if name == gcp["head_node_type"] else "worker"
        assert account["email"].startswith(f"scaling-{who}@")
        (network,) = node_type["node_config"]["networkInterfaces"]
        assert network["subnetwork"].endswith("/subnetworks/scaling")


def test_the_stack_takes_one_address_and_grants_no_service_whole(stack: dict[str, Any]) -> None:
    assert "AllowedPattern: '^(\\d{1,3}\\.){3}\\d{1,3}/32$'" in (
        ROOT / "docs/aws_access.yaml"
    ).read_text(encoding="utf-8")
    granted = statements(
        *stack["HeadRole"]["Properties"]["Policies"], stack["ReadAndWriteStudies"]["Properties"]
    )
    for statement in granted:
        assert not any("*" in action for action in actions(statement))
        describes = all(action.startswith("ec2:Describe") for action in actions(statement))
        assert describes or statement["Resource"] != "*"


def test_workers_may_use_the_bucket_alone_and_the_head_hands_on_their_role_alone(
    stack: dict[str, Any],
) -> None:
    worker, head = stack["WorkerRole"]["Properties"], stack["HeadRole"]["Properties"]
    assert "Policies" not in worker
    assert worker["ManagedPolicyArns"] == head["ManagedPolicyArns"] == ["Ref ReadAndWriteStudies"]
    shared = statements(stack["ReadAndWriteStudies"]["Properties"])
    assert all(action.startswith("s3:") for one in shared for action in actions(one))
    assert all("s3:::${Studies}" in one["Resource"] for one in shared)
    (passes,) = (s for s in statements(*head["Policies"]) if "iam:PassRole" in actions(s))
    assert passes["Resource"] == "GetAtt WorkerRole.Arn"
    assert passes["Condition"]["StringEquals"] == {"iam:PassedToService": "ec2.amazonaws.com"}


def test_the_bucket_is_closed_to_the_public_and_stays(stack: dict[str, Any]) -> None:
    bucket = stack["Studies"]
    assert bucket["DeletionPolicy"] == bucket["UpdateReplacePolicy"] == "Retain"
    blocked = bucket["Properties"]["PublicAccessBlockConfiguration"]
    assert len(blocked) == 4
    assert all(value is True for value in blocked.values())


@pytest.mark.parametrize("name", FILES)
def test_mlflow_listens_on_loopback_where_the_driver_looks(
    configs: dict[str, Config], name: str, stack: dict[str, Any]
) -> None:
    config = configs[name]
    server = mlflow_server(config)
    assert "--host 127.0.0.1" in server
    (port,) = re.findall(r"--port (\d+)", server)
    assert variables(starts(config, "head"))["MLFLOW_TRACKING_URI"] == f"http://127.0.0.1:{port}"
    order = config["head_start_ray_commands"]
    assert order.index(server) < order.index(starts(config, "head"))
    assert f"/dev/tcp/127.0.0.1/{port}" in order[-1]  # `ray up` ends when it answers
    # More than one, and a busy machine has none: each is ended that takes 5 s to load. MLflow's own
    # jobs are seven processes that no study uses.
    assert "--workers 1" in server
    assert "MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false" in server
    (artifacts,) = re.findall(r"--artifacts-destination (\S+)", server)
    expected = {
        # The stack's bucket, of the account that does not exist.
        "cluster.yaml": stack["Studies"]["Properties"]["BucketName"]
        .replace("Sub ${ClusterName}", f"s3://{config['cluster_name']}")
        .replace("${AWS::AccountId}", "0" * 12),
        "clusters/gcp.yaml": "gs://your-project-scaling",
        "clusters/local.yaml": "/shared",
    }
    assert artifacts == f"{expected[name]}/mlflow"


@pytest.mark.parametrize("name", FILES)
def test_the_package_is_mounted_and_installed_at_pinned_versions(
    configs: dict[str, Config], name: str
) -> None:
    config = configs[name]
    mounts = config["file_mounts"]
    local = {path for remote, path in mounts.items() if remote.startswith("~/scaling/")}
    assert {"scaling", "pyproject.toml", "constraints.txt", "README.md", "LICENSE"} <= local
    for path in local:
        assert (ROOT / path).exists(), path
    # Merged with those of every node.
    installs = [c for c in config["head_setup_commands"] if 'pip" install' in c]
    (upgrade, *others) = installs
    assert '"pip>=25.1"' in upgrade
    assert all('-c "$HOME/scaling/constraints.txt"' in command for command in others)
    storage = {"cluster.yaml": ",s3", "clusters/gcp.yaml": ",gcs", "clusters/local.yaml": ""}
    assert f'-e "$HOME/scaling[g2p,pos,treebank{storage[name]}]"' in others[0]
    constraints = (ROOT / "constraints.txt").read_text(encoding="utf-8")
    assert re.search(r"^ray==", constraints, re.MULTILINE)


@pytest.mark.parametrize("name", FILES)
def test_nobody_gets_in_without_the_token(configs: dict[str, Config], name: str) -> None:
    config = configs[name]
    assert config["file_mounts"]["~/.ray/auth_token"] == "~/.ray/auth_token"
    for of in ("head", "worker"):
        assert variables(starts(config, of))["RAY_AUTH_MODE"] == "token"
        assert "--dashboard-host" not in starts(config, of)


@pytest.mark.parametrize("name", ["clusters/kuberay/rayjob.yaml", "docs/how-to/cluster.md"])
def test_every_setting_that_is_shown_is_one_of_a_study_file(name: str) -> None:
    from scaling.spec.resources import Resources

    text = (ROOT / name).read_text(encoding="utf-8")
    shown = re.findall(r"--set resources\.([a-z_]+)=(\S+)", text)
    assert shown
    for field, value in shown:
        Resources.model_validate({field: yaml.safe_load(value)})


def test_every_step_on_aws_is_of_the_region_whose_name_is_set() -> None:
    page = (ROOT / "docs/how-to/cluster.md").read_text(encoding="utf-8")
    steps = "\n".join(re.findall(r"```sh\n(.*?)```", page.partition("## AWS")[2], re.S))
    used = set(re.findall(r"\$([a-z]+)", steps))
    given = re.findall(r"(?:^export| )([a-z]+)=", steps, re.M)
    assert {"name", "region", "account", "group", "image"} <= used <= set(given)
    named = re.findall(
        r"(?:--stack-name |cluster-name,Values=|ClusterName=|s3://)(\S+?)[-/\s]", steps
    )
    assert len(named) > 5
    assert set(named) == {"$name"}
