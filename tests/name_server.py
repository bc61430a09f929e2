"""A small name server on a real UDP port, for TXT records alone."""

from __future__ import annotations

import socket
import threading

import dns.flags
import dns.message
import dns.rcode
import dns.rdataclass
import dns.rdatatype
import dns.rdtypes.ANY.TXT
import dns.rrset


class NameServer:
    """Answers with ``records``: the parts of each TXT record of a name. Other names do not exist.

    ``silent``: it takes questions and answers none; ``broken``: every answer is SERVFAIL.
    """

    def __init__(self) -> None:
        self.records: dict[str, list[list[str]]] = {}
        self.silent = self.broken = False
        self.asked: list[str] = []
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End the thread and give the port back."""
        # An empty packet is no question, and wakes the thread.
        self._socket.sendto(b"", self._socket.getsockname())
        self._thread.join()
        self._socket.close()

    def _serve(self) -> None:
        while True:
            packet, sender = self._socket.recvfrom(4096)
            if not packet:
                return
            answer = self._answer(dns.message.from_wire(packet))
            if answer is not None:
                self._socket.sendto(answer.to_wire(), sender)

    def _answer(self, query: dns.message.Message) -> dns.message.Message | None:
        (question,) = query.question
        name = question.name.to_text(omit_final_dot=True)
        self.asked.append(name)
        if self.silent:
            return None
        answer = dns.message.make_response(query)
        answer.flags |= dns.flags.RA
        if self.broken:
            answer.set_rcode(dns.rcode.SERVFAIL)
        elif name not in self.records:
            answer.set_rcode(dns.rcode.NXDOMAIN)
        elif texts := self.records[name]:
            kind = (dns.rdataclass.IN, dns.rdatatype.TXT)
            found = [
                dns.rdtypes.ANY.TXT.TXT(*kind, strings=[part.encode() for part in parts]) for parts in texts
            ]
            answer.answer.append(dns.rrset.from_rdata(question.name, 60, *found))
        return answer
