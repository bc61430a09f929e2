"""Which addresses a webhook may have: nobody may make the gateway call into its own network."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

from django.conf import settings


class BadAddress(ValueError):
    """An address no webhook may have; the message is for the person who typed it and quotes no secret."""


@dataclass(frozen=True, slots=True)
class Destination:
    """An address that was looked up: ``ip`` is where to connect, so that a name cannot change its mind."""

    host: str
    ip: str
    port: int
    plain: bool
    path: str

    @property
    def url(self) -> str:
        """The address by its number."""
        shown = f"[{self.ip}]" if ":" in self.ip else self.ip
        return f"{'http' if self.plain else 'https'}://{shown}:{self.port}{self.path}"

    @property
    def host_header(self) -> str:
        """What the ``Host`` header says."""
        return self.host if self.port == (80 if self.plain else 443) else f"{self.host}:{self.port}"


def resolve(url: str) -> Destination:
    """Look up ``url``. Raises ``BadAddress`` unless it is https and every address of its name is public.

    With ``WEBHOOK_PRIVATE_ADDRESSES``, plain http and private addresses are allowed too.
    """
    lenient = settings.WEBHOOK_PRIVATE_ADDRESSES
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise BadAddress("This is not a web address.") from None
    if parts.scheme != "https" and not (lenient and parts.scheme == "http"):
        raise BadAddress("The address must begin with https://.")
    if not parts.hostname or parts.username is not None or parts.password is not None:
        raise BadAddress("The address must name a host, and no user.")
    plain = parts.scheme == "http"
    port = port or (80 if plain else 443)
    try:
        found = socket.getaddrinfo(parts.hostname, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise BadAddress("The host of the address is not known.") from None
    numbers = [str(entry[4][0]) for entry in found]
    if not lenient and not all(_public(number) for number in numbers):
        raise BadAddress("The address leads into a private network.")
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Destination(parts.hostname, numbers[0], port, plain, path)


def _public(number: str) -> bool:
    address = ipaddress.ip_address(number.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        # An IPv4 address in an IPv6 coat is judged as what it is.
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo and address.teredo[1])
        if inner:
            return inner.is_global and not inner.is_multicast
        if address in ipaddress.ip_network("64:ff9b::/96"):
            return _public(str(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)))
    return address.is_global and not address.is_multicast
