"""Who may use what: shared and exclusive leases, first come, first served. Pure; part of the keeper process.

Standard library only: the keeper must be up within a fraction of a second (see ``process``).
"""

from __future__ import annotations


class Lease:
    """One process asking for one resource. ``deadline`` is on the monotonic clock, ``None`` waits for ever."""

    __slots__ = ("deadline", "exclusive", "pid", "resource")

    def __init__(self, *, resource: str, exclusive: bool, pid: int, deadline: float | None) -> None:
        self.resource = resource
        self.exclusive = exclusive
        self.pid = pid
        self.deadline = deadline

    def __str__(self) -> str:
        return f"process {self.pid} ({'exclusive' if self.exclusive else 'shared'})"


class Leases:
    """Every lease held or asked for.

    A shared lease waits behind an exclusive one that asked before it, so that nobody waits for ever.
    """

    def __init__(self) -> None:
        self._held: list[Lease] = []
        self._waiting: list[Lease] = []

    def ask(self, lease: Lease) -> None:
        """Put a lease at the end of its resource's queue; :meth:`grant` hands it out."""
        self._waiting.append(lease)

    def grant(self) -> list[Lease]:
        """Hand out what can be handed out now and return those leases, in the order they were asked for."""
        granted = []
        blocked: set[str] = set()
        for lease in list(self._waiting):
            held = self.held(lease.resource)
            if lease.resource in blocked or (held and (lease.exclusive or held[0].exclusive)):
                blocked.add(lease.resource)
                continue
            self._waiting.remove(lease)
            self._held.append(lease)
            granted.append(lease)
        return granted

    def drop(self, lease: Lease) -> None:
        """Give a lease back, or leave the queue; nothing happens when it is known no more."""
        for place in (self._held, self._waiting):
            if lease in place:
                place.remove(lease)

    def overdue(self, now: float) -> list[Lease]:
        """Take the leases out of the queue whose deadline has passed and return them."""
        late = [lease for lease in self._waiting if lease.deadline is not None and lease.deadline <= now]
        for lease in late:
            self._waiting.remove(lease)
        return late

    def held(self, resource: str) -> list[Lease]:
        """Return who holds the resource now: any number of shared leases, or one exclusive one."""
        return [lease for lease in self._held if lease.resource == resource]

    def deadlines(self) -> list[float]:
        """Return when those who wait stop waiting."""
        return [lease.deadline for lease in self._waiting if lease.deadline is not None]

    def refusal(self, lease: Lease) -> str:
        """Say why a lease was not granted: who holds its resource, and who waits for it."""
        holders = ", ".join(map(str, self.held(lease.resource))) or "nobody"
        queue = ", ".join(str(other) for other in self._waiting if other.resource == lease.resource)
        waiting = f"; waiting as well: {queue}" if queue else ""
        kind = "exclusive" if lease.exclusive else "shared"
        return f"no {kind} lease of {lease.resource!r} in time: held by {holders}{waiting}"
