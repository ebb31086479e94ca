"""Addresses that no study can join are refused before Ray is asked; plans ask nobody."""

import pytest

from scaling.runner.joining import require_address
from scaling.runner.preflight import StartError


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("ray://head:10001", "is for Ray's client, by which no study runs; give HOST:6379"),
        ("http://head:8265", "is where jobs are submitted (ray job submit --address"),
        ("head", "is not the address of a Ray cluster; give HOST:PORT, auto or local"),
    ],
)
@pytest.mark.parametrize("is_plan", [True, False])
@pytest.mark.parametrize("source", ["--address", "RAY_ADDRESS"])
def test_what_is_no_address(address: str, said: str, source: str, is_plan: bool) -> None:
    with pytest.raises(StartError) as refused:
        require_address(address, source, is_plan)
    assert said in str(refused.value)
    assert str(refused.value).startswith(f"{source}: ")
    assert "\n" not in str(refused.value)


def test_where_nobody_listens(free_port: int) -> None:
    address = f"127.0.0.1:{free_port}"
    require_address(address, "--address", True)
    with pytest.raises(StartError, match=r"no Ray cluster at .* \(Connection refused\)") as refused:
        require_address(address, "--address", False)
    assert "ray status" in str(refused.value)


def test_a_host_that_there_is_not() -> None:
    with pytest.raises(StartError, match=r"no Ray cluster at no-such-host\.invalid:6379 \("):
        require_address("no-such-host.invalid:6379", "--address", False)
