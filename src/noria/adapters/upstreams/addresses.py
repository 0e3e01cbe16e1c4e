"""Which network addresses may be called: the one rule against requests that are made to go where they should not.

Names prove nothing, since whoever owns a name decides what it points to; so the rule is asked about the address that a
connection goes to.
"""

import ipaddress

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

METADATA = frozenset(
    ipaddress.ip_address(a)
    for a in ("168.63.129.16", "100.100.100.200", "192.0.0.192", "fd00:ec2::254", "fd20:ce::254")
)
"""Cloud metadata services outside the link-local range (Azure, Alibaba, Oracle, AWS and Google over IPv6)."""
_THIS_NETWORK = ipaddress.ip_network("0.0.0.0/8")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def parse(text: str) -> Address:
    """An address as the system writes it, without its zone (`fe80::1%eth0`)."""
    return ipaddress.ip_address(text.partition("%")[0])


def forbidden(address: Address) -> bool:
    """Whether nobody's service can be at that address: link-local, cloud metadata, multicast, unspecified, reserved."""
    inner = _inside(address)
    if inner is not None:
        return forbidden(inner)
    if address.is_loopback:  # ::1 counts as reserved
        return False
    never = address.is_link_local or address.is_multicast or address.is_unspecified or address.is_reserved
    return never or address in METADATA or (address.version == 4 and address in _THIS_NETWORK)


def private(address: Address) -> bool:
    """Whether an address isn't the public internet's: loopback, a private network, a carrier's own."""
    inner = _inside(address)
    return private(inner) if inner is not None else not address.is_global


def why_not(address: Address, *, private_allowed: bool) -> str:
    """What an address is that may not be called; empty if it may."""
    if forbidden(address):
        return "a link-local, metadata, multicast or reserved address"
    if private(address) and not private_allowed:
        return "a loopback or private address"
    return ""


def _inside(address: Address) -> Address | None:
    """The IPv4 address that an IPv6 address stands for: mapped, 6to4 or NAT64."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour
