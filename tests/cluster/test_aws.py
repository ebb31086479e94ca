"""cluster.yaml and its stack, filled in as the docs say, against moto: what Ray asks AWS for."""

import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

pytestmark = [pytest.mark.slow, pytest.mark.ci]

ROOT = Path(__file__).parents[2]
ACCOUNT = "123456789012"  # moto's
HOME_ADDRESS = "203.0.113.7/32"
IMAGE = "ami-0123456789abcdef0"
REFUSED = "InsufficientInstanceCapacity"

Config = dict[str, Any]


@dataclass(frozen=True)
class Cloud:
    """A region with the stack in it, and cluster.yaml after Ray's bootstrap there.

    Attributes:
        name: The stack's ClusterName.
        before: The account's profiles, roles and the region's groups before the bootstrap.
    """

    region: str
    name: str
    group: str
    config: Config
    before: dict[str, set[str]]

    @property
    def ec2(self) -> Any:
        return client("ec2", self.region)


def imported(name: str) -> Any:
    """One of moto's packages, which load only where these tests run."""
    return pytest.importorskip(name, reason="the group dev is not installed")


def client(service: str, region: str) -> Any:
    return imported("boto3").client(service, region)


def shell_lines(start: str) -> str:
    """The command of the page that starts so, with the lines that it goes on with."""
    text = (ROOT / "docs/how-to/cluster.md").read_text(encoding="utf-8")
    (found,) = re.findall(rf"^({re.escape(start)}(?:.*\\\n)*.*)", text, re.MULTILINE)
    return found


def deploy(region: str, name: str) -> str:
    """Make the stack, and return its security group, found by the query of the docs."""
    ec2, stacks = client("ec2", region), client("cloudformation", region)
    (vpc,) = ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"]
    given = {"VpcId": vpc["VpcId"], "SshFrom": HOME_ADDRESS, "ClusterName": name}
    stacks.create_stack(
        StackName=name,
        TemplateBody=(ROOT / "docs/aws_access.yaml").read_text(encoding="utf-8"),
        Capabilities=["CAPABILITY_NAMED_IAM"],
        Parameters=[{"ParameterKey": k, "ParameterValue": v} for k, v in given.items()],
    )
    (query,) = re.findall('--query "(.*)"', shell_lines("export group=$(aws"))
    (group,) = imported("jmespath").search(query, stacks.describe_stacks(StackName=name))
    return group


def filled_in(region: str, name: str, group: str, folder: Path) -> Config:
    """cluster.yaml after the command that the docs show, run by a shell."""
    ids = {"account": ACCOUNT, "group": group, "image": IMAGE, "region": region, "name": name}
    (folder / "cluster.yaml").write_bytes((ROOT / "cluster.yaml").read_bytes())
    subprocess.run(
        ["bash", "-euc", shell_lines('sed "')],
        cwd=folder, env={"PATH": "/usr/bin:/bin", **ids}, check=True,
    )  # fmt: skip
    return yaml.safe_load((folder / "mine.yaml").read_text(encoding="utf-8"))


def what_is_there(region: str) -> dict[str, set[str]]:
    iam = client("iam", region)
    return {
        "profiles": {
            p["InstanceProfileName"] for p in iam.list_instance_profiles()["InstanceProfiles"]
        },
        "roles": {r["RoleName"] for r in iam.list_roles()["Roles"]},
        "groups": {
            g["GroupId"] for g in client("ec2", region).describe_security_groups()["SecurityGroups"]
        },
    }


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An account of nobody's, and a home for the SSH key that Ray makes."""
    moto = imported("moto")
    from ray.autoscaler._private.aws import config, utils

    home = tmp_path_factory.mktemp("home")
    caches = (utils.resource_cache, utils.client_cache, config._get_subnets_or_die)
    with pytest.MonkeyPatch.context() as patch, moto.mock_aws():
        patch.setenv("HOME", str(home))
        patch.delenv("AWS_PROFILE", raising=False)
        for cache in caches:
            cache.cache_clear()
        yield home
        for cache in caches:
            cache.cache_clear()


@pytest.fixture(scope="module", params=[("us-west-2", "scaling"), ("eu-central-1", "scaling-eu")])
def cloud(request: pytest.FixtureRequest, account: Path) -> Cloud:
    from ray.autoscaler._private.aws.config import bootstrap_aws
    from ray.autoscaler._private.util import prepare_config, validate_config

    region, name = request.param
    group = deploy(region, name)
    folder = account / region
    folder.mkdir()
    config = prepare_config(filled_in(region, name, group, folder))
    validate_config(config)
    before = what_is_there(region)
    return Cloud(region, name, group, bootstrap_aws(config), before)


def provider_of(cloud: Cloud) -> Any:
    from ray.autoscaler._private.aws.node_provider import AWSNodeProvider

    return AWSNodeProvider(cloud.config["provider"], cloud.config["cluster_name"])


def launch(cloud: Cloud, provider: Any, node_type: str) -> Any:
    """As Ray's autoscaler does on the head; returns what it notes of types that were refused."""
    from ray.autoscaler._private.event_summarizer import EventSummarizer
    from ray.autoscaler._private.node_launcher import BaseNodeLauncher
    from ray.autoscaler._private.node_provider_availability_tracker import (
        NodeProviderAvailabilityTracker,
    )
    from ray.autoscaler._private.util import ConcurrentCounter

    pending, noted = ConcurrentCounter(), NodeProviderAvailabilityTracker()
    pending.inc(node_type, 1)
    launcher = BaseNodeLauncher(provider, pending, EventSummarizer(), noted)
    launcher.launch_node(cloud.config, 1, node_type)
    return noted.summary().node_availabilities[node_type]


def launch_head(cloud: Cloud, provider: Any) -> None:
    """As `ray up` does (get_or_create_head_node), without the SSH that follows."""
    config = cloud.config
    kind = config["head_node_type"]
    node = config["head_node"] | config["available_node_types"][kind]["node_config"]
    tags = {
        "ray-node-type": "head", "ray-user-node-type": kind, "ray-node-status": "uninitialized",
        "ray-launch-config": "hash", "ray-node-name": f"ray-{config['cluster_name']}-head",
    }  # fmt: skip
    provider.create_node(node, tags, 1)


@contextmanager
def refusing(provider: Any, subnets: list[str]) -> Iterator[list[str]]:
    """AWS has no machine in these subnets; yields the subnets that were asked, in turn."""
    errors = imported("botocore.exceptions")
    asked: list[str] = []

    def refuse(params: dict[str, Any], **_: Any) -> None:
        asked.append(params["SubnetId"])
        if asked[-1] in subnets:
            said = {"Error": {"Code": REFUSED, "Message": "none left"}}
            raise errors.ClientError(said, "RunInstances")

    events = provider.ec2_fail_fast.meta.client.meta.events
    events.register("provide-client-params.ec2.RunInstances", refuse)
    yield asked
    events.unregister("provide-client-params.ec2.RunInstances", refuse)


def instances(cloud: Cloud) -> dict[str, Config]:
    """What runs in the region, by its node type in cluster.yaml."""
    found = {}
    for reservation in cloud.ec2.describe_instances()["Reservations"]:
        for instance in reservation["Instances"]:
            tags = {tag["Key"]: tag["Value"] for tag in instance["Tags"]}
            if instance["State"]["Name"] == "running":
                found[tags["ray-user-node-type"]] = instance | {"tags": tags}
    return found


@pytest.fixture(scope="module")
def running(cloud: Cloud) -> dict[str, Config]:
    """A head, a spot and an on-demand worker."""
    provider = provider_of(cloud)
    launch_head(cloud, provider)
    for kind in ("gpu_spot", "gpu_on_demand"):
        assert launch(cloud, provider, kind).is_available
    return instances(cloud)


def test_the_bootstrap_makes_no_profile_role_or_group(cloud: Cloud) -> None:
    assert what_is_there(cloud.region) == cloud.before
    assert cloud.config["head_node"] == {}  # where Ray puts a profile of its own making
    assert {f"{cloud.name}-head", f"{cloud.name}-worker"} <= cloud.before["profiles"]


def test_every_node_is_of_the_cluster_and_has_its_own_profile(
    cloud: Cloud, running: dict[str, Config]
) -> None:
    assert set(running) == {"head", "gpu_spot", "gpu_on_demand"}
    for kind, instance in running.items():
        who = "head" if kind == "head" else "worker"
        profile = f"arn:aws:iam::{ACCOUNT}:instance-profile/{cloud.name}-{who}"
        assert instance["IamInstanceProfile"]["Arn"] == profile
        # The head may start and end only what has this tag from its first moment.
        assert instance["tags"]["ray-cluster-name"] == cloud.name
        assert instance["tags"]["ray-node-type"] == who
        assert instance["tags"]["Name"] == f"ray-{cloud.name}-{who}"


def test_only_the_closed_group_of_the_stack_is_used(
    cloud: Cloud, running: dict[str, Config]
) -> None:
    for instance in running.values():
        assert [group["GroupId"] for group in instance["SecurityGroups"]] == [cloud.group]
    (group,) = cloud.ec2.describe_security_groups(GroupIds=[cloud.group])["SecurityGroups"]
    ssh, inside = group["IpPermissions"]
    assert (ssh["IpProtocol"], ssh["FromPort"], ssh["ToPort"]) == ("tcp", 22, 22)
    assert [one["CidrIp"] for one in ssh["IpRanges"]] == [HOME_ADDRESS]
    assert ssh["UserIdGroupPairs"] == ssh["Ipv6Ranges"] == []
    assert inside["IpProtocol"] == "-1"
    assert [pair["GroupId"] for pair in inside["UserIdGroupPairs"]] == [cloud.group]
    assert inside["IpRanges"] == inside["Ipv6Ranges"] == []


def test_machines_image_disk_and_market(cloud: Cloud, running: dict[str, Config]) -> None:
    machines = {"head": "r6i.2xlarge", "gpu_spot": "g5.xlarge", "gpu_on_demand": "g5.xlarge"}
    assert {kind: one["InstanceType"] for kind, one in running.items()} == machines
    assert [kind for kind, one in running.items() if one.get("InstanceLifecycle")] == ["gpu_spot"]
    assert running["gpu_spot"]["InstanceLifecycle"] == "spot"
    for instance in running.values():
        assert instance["ImageId"] == IMAGE
        assert instance["MetadataOptions"]["HttpTokens"] == "required"
        assert instance["MetadataOptions"]["HttpPutResponseHopLimit"] == 1
        (disk,) = instance["BlockDeviceMappings"]
        assert disk["DeviceName"] == instance["RootDeviceName"] == "/dev/sda1"
        assert disk["Ebs"]["DeleteOnTermination"]
        (volume,) = cloud.ec2.describe_volumes(VolumeIds=[disk["Ebs"]["VolumeId"]])["Volumes"]
        assert (volume["Size"], volume["VolumeType"], volume["Encrypted"]) == (150, "gp3", True)


def test_every_zone_is_tried_until_one_has_a_machine(cloud: Cloud) -> None:
    subnets = {
        s["SubnetId"]: s["AvailabilityZone"] for s in cloud.ec2.describe_subnets()["Subnets"]
    }
    for node_type in cloud.config["available_node_types"].values():
        assert set(node_type["node_config"]["SubnetIds"]) == set(subnets)
    provider = provider_of(cloud)
    *without, last = cloud.config["available_node_types"]["gpu_spot"]["node_config"]["SubnetIds"]
    with refusing(provider, without) as asked:
        assert launch(cloud, provider, "gpu_spot").is_available
    assert [subnets[one] for one in asked] == sorted(subnets.values(), reverse=True)
    assert instances(cloud)["gpu_spot"]["SubnetId"] == last


def test_a_type_that_no_zone_has_is_noted_as_refused(cloud: Cloud) -> None:
    provider = provider_of(cloud)
    everywhere = cloud.config["available_node_types"]["gpu_spot"]["node_config"]["SubnetIds"]
    with refusing(provider, everywhere):
        noted = launch(cloud, provider, "gpu_spot")
    # What clusters/spot_first.py goes by.
    assert not noted.is_available
    assert noted.unavailable_node_information.category == REFUSED


def test_the_head_may_do_what_ray_does_there_and_no_more(cloud: Cloud) -> None:
    """Every call of a worker's life on the head is granted, and what is granted is called."""
    from ray.autoscaler.tags import TAG_RAY_NODE_STATUS

    called: set[str] = set()
    provider = provider_of(cloud)
    for resource in (provider.ec2, provider.ec2_fail_fast):
        resource.meta.client.meta.events.register(
            "before-call.ec2", lambda model, **_: called.add(f"ec2:{model.name}")
        )
    launch(cloud, provider, "gpu_spot")
    (worker, *_) = provider.non_terminated_nodes({"ray-user-node-type": "gpu_spot"})
    provider.set_node_tags(worker, {TAG_RAY_NODE_STATUS: "up-to-date"})
    provider.internal_ip(worker)
    provider.terminate_nodes([worker])
    iam = client("iam", cloud.region)
    (policy,) = iam.list_role_policies(RoleName=f"{cloud.name}-head")["PolicyNames"]
    document = iam.get_role_policy(RoleName=f"{cloud.name}-head", PolicyName=policy)
    granted = str(document["PolicyDocument"])
    assert called == set(re.findall(r"ec2:[A-Z][A-Za-z]+", granted)) - {"ec2:CreateAction"}
    assert f":ec2:{cloud.region}:{ACCOUNT}:security-group/{cloud.group}" in granted


def test_cfn_lint_finds_nothing_wrong_with_the_stack() -> None:
    template = (ROOT / "docs/aws_access.yaml").read_text(encoding="utf-8")
    assert imported("cfnlint.api").lint(template) == []
