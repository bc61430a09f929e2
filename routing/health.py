"""Is a deployment fit to be asked? Circuit breakers over what became of earlier attempts.

Pure: the time is given (seconds of any clock that only goes forward), chance is given.

Each deployment has one circuit for the provider's faults, and one for each credential it is asked with:
a refused credential or a reached rate limit says nothing about the others. A credential's state belongs
to the deployment too, since a provider may refuse one model to a credential that is good for another.
It has a third kind for each endpoint and model that it is asked for, open while the provider does not
know that model there: so a client that asks a chat model for embeddings closes it for nobody's chat.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from random import Random

from routing.circuit import (
    ANSWERED_SECONDS,
    CREDENTIAL_PAUSES,
    FAULT_PAUSES,
    LIMIT_PAUSES,
    LONGEST_AFTER_FAULT,
    LONGEST_RETRY_AFTER,
    UNKNOWN_PAUSES,
    Circuit,
    Outcome,
    Pauses,
)

# A circuit's name: the deployment's id, and "", the credential's fingerprint, or a question.
Key = tuple[int, str]


def question(endpoint: str, model: str) -> str:
    """The name of what a provider is asked: an endpoint of one of its models."""
    return f"{endpoint} {model}"


def endpoint_of(name: str) -> str:
    """The endpoint of a question; empty for "" and a credential's fingerprint."""
    endpoint, space, _ = name.partition(" ")
    return endpoint if space else ""


@dataclass(slots=True)
class Visit:
    """Leave for one attempt. ``credential`` is an index; ``probes`` are the circuits it decides about."""

    deployment_id: int
    credential: int
    fingerprint: str
    epoch: int
    credential_epoch: int
    question: str = ""
    question_epoch: int = 0
    probes: list[Key] = field(default_factory=list)
    # Those that this worker has told the others of.
    claimed: tuple[Key, ...] = ()
    ended: bool = False


class Health:
    """Every circuit that one worker knows. ``changed`` collects the keys of those that opened or closed."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._circuits: dict[Key, Circuit] = {}
        # Deployments that have a circuit which is not closed: all others pass at the price of one look.
        self._troubled: set[int] = set()
        # When a question was answered last.
        self._answered: dict[Key, float] = {}
        self.changed: set[Key] = set()

    # --- before an attempt -----------------------------------------------------------------------

    def troubled(self, deployment_id: int) -> bool:
        """Whether any of the deployment's circuits is not closed. Cheap, for the many that are well."""
        return deployment_id in self._troubled

    def wait(self, deployment_id: int, credentials: Sequence[str], now: float, question: str = "") -> float:
        """How long no request may go with any of ``credentials`` (fingerprints), and this question if given.

        Seconds until one may; 0: now; infinite while it depends on a probe under way.
        """
        own = max(self._wait((deployment_id, ""), now), self._wait((deployment_id, question), now))
        return max(own, min(self._wait((deployment_id, each), now) for each in credentials))

    def _wait(self, key: Key, now: float) -> float:
        circuit = self._circuits.get(key)
        if circuit is None or circuit.until is None:
            return 0.0
        if circuit.probing:
            return float("inf")
        return max(0.0, circuit.until - now)

    def why(self, deployment_id: int, credentials: Sequence[str], now: float, question: str = "") -> str:
        """What keeps requests from the deployment: the reason its circuit opened for; empty if nothing."""
        for name in ("", *credentials, question):
            circuit = self._circuits.get((deployment_id, name))
            if circuit is not None and not circuit.passes(now):
                return circuit.why
        return ""

    def enter(
        self,
        deployment_id: int,
        credentials: Sequence[str],
        now: float,
        preferred: str = "",
        question: str = "",
    ) -> Visit | None:
        """Leave for an attempt, with the ``preferred`` credential or else one by chance, among those that
        work; None: not now. ``question`` is what will be asked."""
        if deployment_id not in self._troubled:
            if preferred in credentials:
                index = credentials.index(preferred)
            else:
                index = self._random.randrange(len(credentials)) if len(credentials) > 1 else 0
        else:
            found = self._credential(deployment_id, credentials, now, preferred)
            own = self._circuits.get((deployment_id, ""))
            asked = self._circuits.get((deployment_id, question))
            if (
                found is None
                or (own is not None and not own.passes(now))
                or (asked is not None and not asked.passes(now))
            ):
                return None
            index = found
        fingerprint = credentials[index]
        visit = Visit(
            deployment_id,
            index,
            fingerprint,
            self._epoch((deployment_id, "")),
            self._epoch((deployment_id, fingerprint)),
            question,
            self._epoch((deployment_id, question)),
        )
        if deployment_id in self._troubled:
            for name in dict.fromkeys(("", fingerprint, question)):
                circuit = self._circuits.get((deployment_id, name))
                if circuit is not None and not circuit.closed:
                    circuit.probing = True
                    visit.probes.append((deployment_id, name))
        return visit

    def _credential(
        self, deployment_id: int, credentials: Sequence[str], now: float, preferred: str
    ) -> int | None:
        closed, due = [], []
        for index, fingerprint in enumerate(credentials):
            circuit = self._circuits.get((deployment_id, fingerprint))
            if circuit is None or circuit.closed:
                closed.append(index)
            elif circuit.passes(now):
                due.append(index)
        if not due and preferred in credentials and credentials.index(preferred) in closed:
            return credentials.index(preferred)
        # Who is due again is tried before the others: its failure moves on, and only so it comes back.
        return self._random.choice(due or closed) if due or closed else None

    # --- after it --------------------------------------------------------------------------------

    def answered(self, visit: Visit, now: float) -> None:
        """The first content came: a probe has succeeded, whatever comes after."""
        for key in visit.probes:
            self._circuits[key].close(now)
            self._changed(key)
        if visit.probes:
            visit.probes.clear()
            visit.epoch = self._epoch((visit.deployment_id, ""))
            visit.credential_epoch = self._epoch((visit.deployment_id, visit.fingerprint))
            visit.question_epoch = self._epoch((visit.deployment_id, visit.question))

    def ended(self, visit: Visit, outcome: Outcome, now: float, retry_after: float | None = None) -> None:
        """The attempt is over. ``retry_after`` (seconds) is what the provider asked for with a LIMIT or FAULT."""
        if visit.ended:
            return
        visit.ended = True
        own, theirs = (visit.deployment_id, ""), (visit.deployment_id, visit.fingerprint)
        asked = (visit.deployment_id, visit.question)
        if outcome is Outcome.OK:
            self.answered(visit, now)
            if visit.question:
                self._answered[asked] = now
                self._circuits.pop(asked, None)
        if outcome in (Outcome.OK, Outcome.FAULT):
            self._count(own, visit, outcome is Outcome.FAULT, now, retry_after)
        elif outcome is Outcome.LIMIT:
            self._rest(theirs, visit, LIMIT_PAUSES, "rate_limited", now, retry_after)
        elif outcome is Outcome.CREDENTIAL:
            self._rest(theirs, visit, CREDENTIAL_PAUSES, "credential", now, None)
        elif outcome is Outcome.UNKNOWN and visit.question:
            self._unknown(asked, visit, now)
        epochs = {own: visit.epoch, theirs: visit.credential_epoch, asked: visit.question_epoch}
        for key in visit.probes:
            # No verdict: the next request is the probe.
            circuit = self._circuits[key]
            if circuit.epoch == epochs[key]:
                circuit.probing = False

    def _count(self, key: Key, visit: Visit, fault: bool, now: float, asked: float | None) -> None:
        circuit = self._circuits.get(key)
        if circuit is None:
            circuit = self._circuits[key] = Circuit()
        if circuit.epoch != visit.epoch:
            return
        if circuit.closed:
            many = circuit.counts(fault, now)
        else:
            many = fault and key in visit.probes
        if many or (fault and asked):
            pause = FAULT_PAUSES.at(circuit.next_opening(now), self._random)
            self._open(key, now + max(pause, min(asked or 0.0, LONGEST_AFTER_FAULT)), "failing", now, visit)

    def _unknown(self, key: Key, visit: Visit, now: float) -> None:
        if self._answers(key, now):
            # Not the model is unknown there but something that this request names.
            return
        circuit = self._circuits.get(key)
        if circuit is None:
            circuit = self._circuits[key] = Circuit()
        if circuit.epoch != visit.question_epoch:
            return
        if circuit.counts(True, now) if circuit.closed else key in visit.probes:
            pause = UNKNOWN_PAUSES.at(circuit.next_opening(now), self._random)
            self._open(key, now + pause, "unknown_model", now, visit)

    def _answers(self, key: Key, now: float) -> bool:
        """Whether a question was answered lately."""
        return now - self._answered.get(key, float("-inf")) < ANSWERED_SECONDS

    def _rest(
        self, key: Key, visit: Visit, pauses: Pauses, why: str, now: float, asked: float | None
    ) -> None:
        circuit = self._circuits.get(key)
        if circuit is None:
            circuit = self._circuits[key] = Circuit()
        if circuit.epoch != visit.credential_epoch:
            if circuit.until is not None and asked is not None:
                circuit.until = max(circuit.until, now + min(asked, LONGEST_RETRY_AFTER))
            return
        pause = pauses.at(circuit.next_opening(now), self._random)
        if asked is not None:
            pause = min(max(asked, 0.0), LONGEST_RETRY_AFTER)
        self._open(key, now + pause, why, now, visit)

    def _open(self, key: Key, until: float, why: str, now: float, visit: Visit) -> None:
        # Whatever it was asked at that moment, it is probed by what it is known to answer.
        known = {at: each for each, at in self._answered.items() if each[0] == key[0]}
        asks = known[max(known)][1] if known and not endpoint_of(key[1]) else visit.question
        self._circuits[key].open(until, why, now, endpoint_of(asks))
        self._changed(key)

    def _changed(self, key: Key) -> None:
        self.changed.add(key)
        self._look(key[0])

    def _look(self, deployment_id: int) -> None:
        if any(each[0] == deployment_id and not c.closed for each, c in self._circuits.items()):
            self._troubled.add(deployment_id)
        else:
            self._troubled.discard(deployment_id)

    def _epoch(self, key: Key) -> int:
        circuit = self._circuits.get(key)
        return circuit.epoch if circuit is not None else 0

    # --- what other workers know -----------------------------------------------------------------

    def open_circuits(self) -> Iterator[tuple[Key, Circuit]]:
        """Those that are not closed."""
        return ((key, circuit) for key, circuit in self._circuits.items() if not circuit.closed)

    def adopt(self, key: Key, until: float, why: str, openings: int, now: float, asks: str = "") -> None:
        """Another worker opened this circuit. A probe of our own under way goes on."""
        if endpoint_of(key[1]) and self._answers(key, now):
            # We know better.
            return
        circuit = self._circuits.setdefault(key, Circuit())
        # Our own notices come back, a little blurred by the change of clocks.
        if circuit.until is None or (not circuit.probing and until > circuit.until + 0.1):
            circuit.open(until, why, now, asks)
            circuit.openings = openings
            self._look(key[0])

    def postpone(self, visit: Visit, until: float) -> None:
        """Another worker's probe is under way: give this visit up, and let nothing pass until then."""
        visit.ended = True
        for key in visit.probes:
            circuit = self._circuits[key]
            circuit.probing = False
            if circuit.until is not None:
                circuit.until = max(circuit.until, until)

    def mend(self, key: Key, now: float) -> None:
        """Another worker's probe succeeded."""
        if endpoint_of(key[1]):
            self._answered[key] = now
        circuit = self._circuits.get(key)
        if circuit is not None and not circuit.closed:
            circuit.close(now)
            self._look(key[0])
