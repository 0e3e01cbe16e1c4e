"""Which addresses may be called."""

import pytest

from noria.adapters.upstreams.addresses import parse, why_not

NEVER = (
    *("169.254.169.254", "169.254.1.1", "fe80::1%eth0", "168.63.129.16", "100.100.100.200", "192.0.0.192"),
    *("fd00:ec2::254", "0.0.0.0", "0.1.2.3", "::", "224.0.0.1", "ff02::1", "255.255.255.255", "240.0.0.1"),
    *("::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::1"),
)
PRIVATE = (
    *("127.0.0.1", "127.8.9.1", "::1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "100.64.0.1", "fd12::1"),
    *("::ffff:10.0.0.1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:0a00:0001::1"),
)
PUBLIC = ("20.42.0.1", "1.1.1.1", "2606:4700::1111", "64:ff9b::101:101", "::ffff:1.1.1.1")


@pytest.mark.parametrize("address", NEVER)
def test_some_addresses_are_never_called(address: str) -> None:
    assert why_not(parse(address), private_allowed=True)
    assert why_not(parse(address), private_allowed=False)


@pytest.mark.parametrize("address", PRIVATE)
def test_private_ones_only_where_the_project_says_so(address: str) -> None:
    assert not why_not(parse(address), private_allowed=True)
    assert "private" in why_not(parse(address), private_allowed=False)


@pytest.mark.parametrize("address", PUBLIC)
def test_public_ones_may_be_called(address: str) -> None:
    assert not why_not(parse(address), private_allowed=False)
