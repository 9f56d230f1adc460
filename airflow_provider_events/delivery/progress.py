"""How far a delivery is, how fast it goes, and when it will end: for the log, and for whoever else shows it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, Self

if TYPE_CHECKING:
    from airflow_provider_events.delivery.accounts import Counters

__all__ = ["Meter", "Progress", "counted"]

VERSION = 1

WINDOW_SECONDS = 60.0
SHORTEST_INTERVAL_SECONDS = 1.0
SHORTEST_SHARE_SECONDS = 5.0
SLOW = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """The figures of one moment.

    :param vendor: connection type of the vendor; `conn_id`: the connection.
    :param total: rows of the source, where that is known.
    :param events_per_second: delivered since the figures before these; `events_per_second_overall`: since the start.
    :param requests_per_minute: the quota; `quota_percent`: how much of it the last minute used. None without a quota,
        and before there are five seconds to tell from.
    :param ends_at: as the last minute went on, if `total` is known and anything was delivered in it.
    :param ended: True for the last figures, however the delivery ended; else None.
    """

    vendor: str
    conn_id: str
    updated_at: datetime
    seconds: float
    read: int
    total: int | None
    delivered: int
    rejected: int
    skipped: int
    resumed: int
    requests: int
    retries: int
    events_per_second: float
    events_per_second_overall: float
    requests_per_minute: float | None
    quota_percent: int | None
    ends_at: datetime | None
    ended: bool | None = None

    def at_end(self) -> Self:
        """The same, as the last word."""
        return replace(self, ended=True, ends_at=None)

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe, with its `version`, without what is not known; times are ISO 8601 in UTC."""
        return {"version": VERSION} | {
            name: value.isoformat(timespec="seconds") if isinstance(value, datetime) else value
            for name, value in asdict(self).items()
            if value is not None
        }

    def __str__(self) -> str:
        counts = [f"{self.read} {'' if self.total is None else f'of {self.total} '}read", f"{self.delivered} delivered"]
        counts += [f"{count} {name}" for name in ("rejected", "skipped", "resumed") if (count := getattr(self, name))]
        requests = counted(self.requests, "request") + (f" ({self.retries} repeated)" if self.retries else "")
        if self.quota_percent is not None:
            requests += f", {self.quota_percent} % of {self.requests_per_minute or 0:g} a minute"
        rate = f"{_rate(self.events_per_second)} events/s ({_rate(self.events_per_second_overall)} overall)"
        parts = [", ".join(counts), requests, rate]
        if self.ends_at is not None:
            left = timedelta(seconds=round((self.ends_at - self.updated_at).total_seconds()))
            parts.append(f"about {left} left, until {self.ends_at:%H:%M:%S} UTC")
        return "; ".join(parts)


class _Mark(NamedTuple):
    seconds: float
    delivered: int
    requests: int


class Meter:
    """Makes figures of counts, comparing them to those of the last minute.

    :param vendor: connection type of the vendor; `conn_id`: the connection.
    :param requests_per_minute: the quota; None for none.
    :param total: gives the number of rows; None while it is not known.
    """

    def __init__(
        self,
        vendor: str,
        conn_id: str,
        requests_per_minute: float | None = None,
        total: Callable[[], int | None] = lambda: None,
    ) -> None:
        self._vendor = vendor
        self._conn_id = conn_id
        self._quota = requests_per_minute
        self._total = total
        self._marks = deque([_Mark(0.0, 0, 0)])

    def read(self, counters: Counters) -> Progress:
        """The figures now."""
        now, moment = _Mark(counters.seconds, counters.delivered, counters.requests), datetime.now(UTC)
        marks = self._marks
        if now.delivered < marks[-1].delivered:
            marks.clear()
            marks.append(now)
        while len(marks) > 1 and now.seconds - marks[1].seconds >= WINDOW_SECONDS:
            marks.popleft()
        soon = now.seconds - marks[-1].seconds < SHORTEST_INTERVAL_SECONDS
        last, minute = marks[-2 if soon and len(marks) > 1 else -1], marks[0]
        if not soon:
            marks.append(now)
        rate = _per_second(now.delivered - minute.delivered, minute, now)
        settled = counters.settled
        total = self._total()
        if total is not None and total < counters.read:
            total = None
        ends_at = None
        if total is not None and rate and total > settled:
            rest = (total - settled) * (counters.delivered + counters.resumed) / settled
            ends_at = moment + timedelta(seconds=rest / rate)
        return Progress(
            vendor=self._vendor,
            conn_id=self._conn_id,
            updated_at=moment,
            seconds=round(now.seconds, 1),
            **counters.shown(),
            total=total,
            events_per_second=round(_per_second(now.delivered - last.delivered, last, now), 1),
            events_per_second_overall=round(_per_second(counters.delivered, _Mark(0.0, 0, 0), now), 1),
            requests_per_minute=self._quota,
            quota_percent=None if self._quota is None else self._used(self._quota, minute, now),
            ends_at=ends_at,
        )

    def _used(self, quota: float, earlier: _Mark, now: _Mark) -> int | None:
        """Percent of the requests that were allowed: a first one at once, then one each interval."""
        if now.seconds - earlier.seconds < SHORTEST_SHARE_SECONDS:
            return None
        allowed = 1 + quota * (now.seconds - earlier.seconds) / 60
        return round(100 * (now.requests - earlier.requests) / allowed)


def counted(count: int, noun: str) -> str:
    """`1 request`, `2 requests`."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _per_second(count: int, earlier: _Mark, now: _Mark) -> float:
    return count / max(now.seconds - earlier.seconds, 0.001)


def _rate(per_second: float) -> str:
    return f"{per_second:.{0 if per_second >= SLOW or not per_second else 1}f}"
