"""TXT records of domains, looked up for whoever says that they published one."""

from __future__ import annotations

import ipaddress

import dns.exception
import dns.nameserver
import dns.resolver
from django.conf import settings


class LookUpError(ValueError):
    """No name server could say it; the message is for people."""


def _resolver() -> dns.resolver.Resolver:
    """The name servers of DNS_RESOLVER, or those of this machine. Raises ``NoResolverConfiguration``."""
    if not settings.DNS_RESOLVER:
        return dns.resolver.Resolver()
    resolver = dns.resolver.Resolver(configure=False)
    resolver.nameservers = [
        dns.nameserver.Do53Nameserver(address, port)
        for address, port in map(server_address, settings.DNS_RESOLVER)
    ]
    return resolver


def server_address(text: str) -> tuple[str, int]:
    """The IP address and port of ``text``: ``9.9.9.9``, ``127.0.0.1:5353``, ``[2620:fe::fe]:53``. Raises ``ValueError``."""
    host, port = text.strip(), "53"
    if host.startswith("["):
        host, _, rest = host[1:].partition("]")
        port = rest.removeprefix(":") or port
    elif host.count(":") == 1:
        host, _, port = host.partition(":")
    return str(ipaddress.ip_address(host)), int(port)


def txt_records(domain: str) -> list[str]:
    """The TXT records of ``domain``, an ASCII name; each as one text, however it is cut up. Raises ``LookUpError``."""
    try:
        answer = _resolver().resolve(
            f"{domain}.", "TXT", lifetime=settings.DNS_SECONDS, search=False, raise_on_no_answer=False
        )
    except dns.resolver.NXDOMAIN:
        raise LookUpError(f"The name servers say that there is no {domain}.") from None
    except dns.resolver.NoNameservers:
        raise LookUpError(
            f"The name servers of {domain} answer with an error. Ask whoever runs them."
        ) from None
    except dns.exception.Timeout:
        raise LookUpError(
            f"No name server answered within {settings.DNS_SECONDS:g} seconds. Try again."
        ) from None
    except dns.resolver.NoResolverConfiguration:
        raise LookUpError(
            "This gateway knows no name server (DNS_RESOLVER). Ask whoever runs it to confirm the domain."
        ) from None
    except ValueError:
        raise LookUpError(
            "DNS_RESOLVER has something else than IP addresses. Tell whoever runs this gateway."
        ) from None
    except (dns.exception.DNSException, OSError):
        raise LookUpError(f"The records of {domain} cannot be read. Try again, or ask an operator.") from None
    # RFC 7208, section 3.3, and everybody else: the parts of one record are joined without anything between.
    return [b"".join(record.strings).decode("utf-8", "replace").strip() for record in answer.rrset or ()]
