"""Reading a listing that has no page number, so that what was there throughout is never missed.

First down, from the latest update to the end of the window; then up, from where the way down began. An update moves an
entry only upwards: past a reader on its way down, but towards one on its way up. A page is followed by the next one
from the last time on it, that time included; the listing ends where no longer page brings anything beyond it.

A page that is too long is asked for in smaller parts: of fewer entries, then of a shorter time. So an entry that is too
long by itself is found out by its moment, and passed over.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from functools import partial
from itertools import pairwise
from typing import Any, Protocol

from airflow_provider_events.contract import Answer, Listing, Outcome, Page, Request, Verdict
from airflow_provider_events.exceptions import VendorUnavailable
from airflow_provider_events.http.contract import MAX_ANSWER_BYTES

__all__ = ["Place", "Reader"]

log = logging.getLogger(__name__)

PAGE_SIZE = 100
MAX_PAGE_SIZE = 6400
# A page shorter than the API's own default length is no full one, where nothing else is listed.
DEFAULT_LENGTH = 10
TOO_LONG = "too_long"
TOGETHER = f"those of one moment are longer than {MAX_ANSWER_BYTES} bytes together"
FEWEST = 2  # the last entry of the page before, and another one
FUTURE = timedelta(days=3650)  # no entry is dated later than that
# Entries whose update was stored late, below the newest time already seen, are caught by reading this far back.
OVERLAP = timedelta(seconds=60)
TIMES = ("floor", "edge", "cursor", "passed")
SECOND, MILLISECOND, MICROSECOND = timedelta(seconds=1), timedelta(milliseconds=1), timedelta(microseconds=1)


class Asks(Protocol):
    """Carries a request to the vendor; see `Line.ask`."""

    async def ask(self, request: Callable[[], Request], read: Callable[[Answer], Outcome]) -> Outcome:
        """What the vendor answered."""


@dataclass(slots=True)
class Place:
    """How far a listing has been read: times alone, so that it can be kept between looks.

    :param floor: end of the way down. None: nothing was read.
    :param edge: how far down it was read. None: from the top.
    :param down: the way down is not over.
    :param cursor: the way up goes on here; never later than the vendor's own clock.
    :param longest: entries on the longest page.
    :param size: entries to ask for at once.
    :param passed: the moment of the last entry that was passed over as too long, so that it is found again at once.
    """

    floor: datetime | None = None
    edge: datetime | None = None
    down: bool = True
    cursor: datetime | None = None
    longest: int = 0
    size: int = PAGE_SIZE
    passed: datetime | None = None

    def pack(self) -> dict[str, Any]:
        """As JSON."""
        times = {name: (time := getattr(self, name)) and time.isoformat() for name in TIMES}
        return {**times, "down": self.down, "longest": self.longest, "size": self.size}

    @classmethod
    def unpack(cls, packed: Mapping[str, Any]) -> Place:
        """The inverse of `pack`."""
        times = {name: (time := packed.get(name)) and datetime.fromisoformat(time) for name in TIMES}
        return cls(**times, down=packed["down"], longest=packed["longest"], size=packed["size"])


class Reader:
    """Reads a listing from a place on, and moves the place.

    :param found: is told the searched identities on each page.
    :param enough: whether no further page is needed.
    """

    def __init__(
        self, listing: Listing, place: Place, found: Callable[[Collection[int]], None], enough: Callable[[], bool]
    ) -> None:
        self._listing = listing
        self._place = place
        self._found = found
        self._enough = enough
        self._most = MAX_PAGE_SIZE
        self._unit = SECOND
        self._inclusive = False
        self._one_way = False
        self._span: set[datetime] = set()
        self._passed_over: set[str] = set()
        self._clock = datetime.now(UTC)
        self._answer_length: str | None = None

    async def read(self, line: Asks) -> None:
        """Read all that is not known to have been read, or until it is enough.

        :raises VendorUnavailable: there is no telling whether all was read.
        """
        place, told = self._place, len(self._passed_over)
        try:
            if place.floor is None:
                place.floor = place.cursor = datetime.now(UTC) - self._listing.window
            if place.down:
                await self._go(line, down=True)
                if self._enough():
                    return
                place.down = False
            if not self._one_way and not await self._up(line):
                self._one_way = True
            if self._one_way:
                await self._down_again(line)
        finally:
            if len(self._passed_over) > told:
                log.warning(
                    "%d entries of the listing have no readable time, embeddable or data, or are longer than %d bytes: "
                    "they are passed over",
                    len(self._passed_over),
                    MAX_ANSWER_BYTES,
                )

    async def _up(self, line: Asks) -> bool:
        """Read upwards; False where the vendor lists in one direction only."""
        for _ in range(2):  # an entry of the future may move back, below the reader, while that future is read
            pages = await self._go(line, down=False)
            if pages is None:
                return False
            if self._enough() or pages < 2:
                break
        return True

    async def _down_again(self, line: Asks) -> None:
        """Read down what was updated since, until that takes one page."""
        place = self._place
        for _ in range(3):
            assert place.cursor is not None, "it is set with the floor"
            place.floor, place.edge, place.down = place.cursor - OVERLAP, None, True
            pages = await self._go(line, down=True)
            if self._enough():
                return
            place.down = False
            if pages is not None and pages < 3:
                return

    async def _go(self, line: Asks, *, down: bool) -> int | None:
        """All the way in one direction; how many pages of it were past the vendor's clock, or (down) altogether.

        None where the vendor lists downwards though asked for the other direction.
        """
        place = self._place
        assert place.cursor is not None, "it is set with the floor"
        edge = place.edge if down else place.cursor - OVERLAP
        limit, pages, exact = place.size, 0, False
        passed: datetime | None = None  # beyond this, pages begin behind an entry that was passed over
        while not self._enough():
            bound = self._bound(edge, down, exact or self._inclusive, passed)
            page = await self._page(line, limit, down, bound)
            if page == 0:
                edge, passed = await self._part(line, down, edge, bound, passed)
                if down and place.edge is None:
                    place.cursor = max(place.cursor, min(edge, self._clock))
                self._move(edge, down)
                limit, exact, pages = place.size, False, pages + 1
                continue
            if isinstance(page, int):
                limit = page
                continue
            times = page.times
            if not down and _falls(times, self._unit) and not _rises(times, self._unit):
                return None
            self._check(times, down, bound)
            self._look_at(page)
            if down and edge is None and place.edge is None and times:
                place.cursor = max(place.cursor, min(max(times), self._clock))
            if down or (edge and edge > self._clock):
                pages += 1
            below = down and place.floor is not None and bool(times) and min(times) < place.floor
            if below or self._enough():
                break
            reached = (min(times) if down else max(times)) if times else None
            if reached is not None and _is_past(reached, edge, down):
                edge, exact = reached, False
                self._move(edge, down)
                limit = self._most if len(times) < limit else place.size
                continue
            if exact and not self._inclusive and edge in times:
                self._inclusive = True
            if limit < self._most:
                limit = self._most
            elif not exact and not self._inclusive and any(time != edge for time in times):
                exact = True
            elif page.length < limit and await self._is_last(page, line, down, edge, passed):
                break
            else:
                raise _no_telling(f"more entries were updated at one moment than the {page.length} that one page holds")
        return pages

    def _bound(self, edge: datetime | None, down: bool, exact: bool, passed: datetime | None = None) -> datetime | None:
        """Where the next page begins, so that the moment of the edge is on it, whatever kind of bound it is."""
        if edge is None:
            return None
        margin = timedelta(0) if exact else self._unit
        bound = edge + margin if down else edge - margin
        if passed is None:
            return bound
        return min(bound, passed) if down else max(bound, passed)

    def _move(self, edge: datetime, down: bool) -> None:
        place = self._place
        if down:
            place.edge = edge
        elif place.cursor is not None:
            place.cursor = max(place.cursor, min(edge, self._clock))

    def _look_at(self, page: Page) -> None:
        self._found(page.found)
        self._passed_over.update(page.passed_over)
        self._place.longest = max(self._place.longest, page.length)
        for time in page.times:
            self._unit = min(self._unit, _unit(time))
        if len(self._span) < 2:
            self._span.update(page.times)

    def _check(self, times: Collection[datetime], down: bool, bound: datetime | None) -> None:
        """Whether the vendor did as it was asked."""
        if (_rises if down else _falls)(times, self._unit):
            raise _no_telling("the vendor does not sort them by their last update")
        if bound is not None and any(t > bound + SECOND if down else t < bound - SECOND for t in times):
            raise _no_telling(f"the vendor ignores {'updated_before' if down else 'updated_after'}")

    async def _is_last(
        self, page: Page, line: Asks, down: bool, edge: datetime | None, passed: datetime | None
    ) -> bool:
        """Whether the page could have held more, so that there is no more.

        Where nothing but one moment was ever listed, no page tells how long one can be. Then what lies beyond that
        moment does: it would have been on the page.
        """
        if page.length < self._place.longest:
            return True
        if len(self._span) >= 2 or page.length >= DEFAULT_LENGTH:
            return False
        return not await self._is_beyond(line, down, edge, passed)

    async def _is_beyond(self, line: Asks, down: bool, edge: datetime | None, passed: datetime | None) -> bool:
        """Whether anything is listed beyond a moment, whatever kind of bound it is."""
        if edge is None:
            return False
        for moment in (edge, edge - self._unit if down else edge + self._unit):
            page = await self._page(line, self._most, down, self._bound(moment, down, True, passed))
            if isinstance(page, int):
                return True
            self._look_at(page)
            if any(time != edge for time in page.times):
                return True
        return False

    async def _part(
        self, line: Asks, down: bool, edge: datetime | None, bound: datetime | None, passed: datetime | None
    ) -> tuple[datetime, datetime | None]:
        """Past what makes even the shortest page too long: the next edge, and what lies behind an entry passed over.

        The longest time that can be read is searched. If it brings nothing, what comes next is read by itself.
        """
        unit = min(self._unit, MILLISECOND)
        step = -unit if down else unit
        near = self._clock.replace(microsecond=0) + FUTURE if bound is None else bound
        far = self._place.floor if down and self._place.floor else self._clock + FUTURE
        readable, too_long = -1, max(1, (far - near) // step)
        page: Page | None = None
        guesses: list[int] = []
        if self._place.passed is not None:
            known = (self._place.passed - near) // step
            guesses = [known + 1, known - 1]
        while too_long - readable > 1:
            guess = guesses.pop() if guesses else -1
            middle = guess if readable < guess < too_long else (readable + too_long) // 2
            part = await self._between(line, FEWEST, down, bound, near + middle * step)
            if part is None:
                too_long = middle
            else:
                readable, page = middle, part
        self._most, self._place.size = MAX_PAGE_SIZE, PAGE_SIZE
        if page is not None:
            self._look_at(page)
            if page.times and _is_past(reached := min(page.times) if down else max(page.times), edge, down):
                return reached, passed
        before, after = near + readable * step, near + too_long * step
        inclusive = self._inclusive or await self._holds_any(line, down, before, after)
        moment, margin = (after, timedelta(0)) if inclusive else (before, step)
        behind = moment + step if inclusive else moment
        alone = await self._read_moment(line, down, moment - margin, moment + margin)
        if alone is not None and not alone.length and self._unit > MICROSECOND:
            self._unit = MICROSECOND  # it is dated more precisely than those seen so far
            return await self._part(line, down, edge, bound, passed)
        if alone is None:
            self._passed_over.add(f"the one of {moment}")
            self._place.passed = moment
            return moment, behind
        self._look_at(alone)
        self._place.longest = max(self._place.longest, FEWEST)  # with another one it was too long
        if alone.length < self._place.longest and behind != passed:
            return moment, behind
        if _is_past(moment, edge, down):
            return moment, passed
        raise _no_telling(TOGETHER)

    async def _holds_any(self, line: Asks, down: bool, near: datetime, far: datetime) -> bool:
        """Whether anything is listed between two neighbouring moments, which is one of them: bounds are inclusive."""
        page = await self._between(line, 1, down, near, far)
        return page is None or page.length > 0

    async def _read_moment(self, line: Asks, down: bool, near: datetime, far: datetime) -> Page | None:
        """The entries of one moment; None where it is a single one, which is too long.

        That it is a single one is told by the length of the answer, which is the same for one entry as for all.

        :raises VendorUnavailable: there are several, which are too long together.
        """
        page = await self._between(line, PAGE_SIZE, down, near, far)
        if page is not None:
            return page
        length_of_all = self._answer_length
        for way, start, end in ((down, near, far), (not down, far, near)):
            single = await self._between(line, 1, way, start, end)
            if single is not None or self._answer_length != length_of_all:
                raise _no_telling(TOGETHER)
        return None

    async def _between(
        self, line: Asks, limit: int, down: bool, near: datetime | None, far: datetime | None
    ) -> Page | None:
        """The first entries from one time towards another; None where they are too long.

        :raises VendorUnavailable: the vendor refuses to list them.
        """
        after, before = (far, near) if down else (near, far)
        page = await self._ask(line, limit, after, before, down)
        if isinstance(page, Page):
            return page
        if page.code == TOO_LONG:
            return None
        raise VendorUnavailable(f"the entries cannot be listed ({page.code})", code=page.code)

    async def _page(self, line: Asks, limit: int, down: bool, bound: datetime | None) -> Page | int:
        """One page; or the limit to ask with instead, 0 where none is short enough."""
        after, before = (self._place.floor, bound) if down else (bound, None)
        page = await self._ask(line, limit, after, before, down)
        if isinstance(page, Page):
            return page
        if page.code == TOO_LONG:
            self._most = max(FEWEST, limit // 2)
            self._place.size = min(self._place.size, self._most)
            return self._most if limit > FEWEST else 0
        if limit > PAGE_SIZE:  # a longer page than the vendor takes
            self._most = PAGE_SIZE
            return PAGE_SIZE
        raise VendorUnavailable(f"the entries cannot be listed ({page.code})", code=page.code)

    async def _ask(
        self, line: Asks, limit: int, after: datetime | None, before: datetime | None, down: bool
    ) -> Page | Outcome:
        pages: list[Page] = []
        asked = datetime.now(UTC)

        def read(answer: Answer) -> Outcome:
            self._clock = min(asked, _date(answer) or asked)
            self._answer_length = answer.headers.get("content-length")
            if answer.status == 200 and len(answer.body) >= MAX_ANSWER_BYTES:
                return Outcome(Verdict.REJECTED, TOO_LONG)
            page = self._listing.read(answer)
            if isinstance(page, Outcome):
                return page
            pages.append(page)
            return Outcome(Verdict.FOUND)

        outcome = await line.ask(partial(self._listing.request, limit, after, before, down), read)
        return pages[0] if pages else outcome


def _no_telling(why: str) -> VendorUnavailable:
    return VendorUnavailable(f"the entries cannot be listed so that none is missed: {why}", code="listing")


def _is_past(time: datetime, edge: datetime | None, down: bool) -> bool:
    return edge is None or (time < edge if down else time > edge)


def _unit(time: datetime) -> timedelta:
    return MICROSECOND if time.microsecond % 1000 else MILLISECOND if time.microsecond else SECOND


def _rises(times: Collection[datetime], unit: timedelta) -> bool:
    return any(second - first > unit for first, second in pairwise(times))


def _falls(times: Collection[datetime], unit: timedelta) -> bool:
    return any(first - second > unit for first, second in pairwise(times))


def _date(answer: Answer) -> datetime | None:
    try:
        date = parsedate_to_datetime(answer.headers["date"])
    except (KeyError, ValueError):
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)
