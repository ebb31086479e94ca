"""By which network interface workers find each other, and what is recorded of a GPU."""

import psutil
import pytest
import torch

from scaling.measures.device import Device, describe_device, driver_version
from scaling.runner.process_group import interface_variables

LOOPBACK = next(
    name
    for name, its in psutil.net_if_addrs().items()
    if "127.0.0.1" in {each.address for each in its}
)
BOTH = {"GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME"}


def test_the_interface_is_the_one_of_the_address_that_ray_knows() -> None:
    assert interface_variables(None, "127.0.0.1", {}) == dict.fromkeys(BOTH, LOOPBACK)
    assert interface_variables(None, "203.0.113.7", {}) == {}  # behind a translated address


def test_what_the_environment_says_stays_and_the_study_file_wins() -> None:
    known = {"NCCL_SOCKET_IFNAME": "ib0"}
    assert interface_variables(None, "127.0.0.1", known) == {"GLOO_SOCKET_IFNAME": LOOPBACK}
    found = interface_variables(LOOPBACK, "203.0.113.7", known)
    assert found == dict.fromkeys(BOTH, LOOPBACK)


def test_an_interface_that_a_machine_lacks_is_named_with_those_it_has() -> None:
    with pytest.raises(
        ValueError, match=r"resources\.network_interface: 10\.0\.0\.7 has"
    ) as raised:
        interface_variables("eth9", "10.0.0.7", {})
    assert LOOPBACK in str(raised.value).partition("allowed")[2]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.161.08  Tue Mar 5", "535.161.08"),
        (
            "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release Build",
            "570.86.15",
        ),
        ("something else", None),
    ],
)
def test_the_driver_s_version(text: str, expected: str | None) -> None:
    assert driver_version(text) == expected


def test_a_cpu_has_no_versions_of_its_own() -> None:
    assert describe_device(torch.device("cpu")) == Device("cpu")
