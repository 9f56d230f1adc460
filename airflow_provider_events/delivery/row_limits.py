"""How many rows a delivery may send: counted before the first request, and no further than needed."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from airflow_provider_events.delivery.resume import Source
from airflow_provider_events.exceptions import ConfigurationError, TooManyRows

__all__ = ["RowLimit", "check_row_count"]

log = logging.getLogger(__name__)

COUNTED_FURTHER = 100  # times the limit, so that the error tells a table ten times too large from a hundred times


@dataclass(frozen=True, slots=True)
class RowLimit:
    """A limit, and where it comes from.

    :param option: that sets it, e.g. `max_rows`.
    :param words: the limit as an error explains it.
    """

    rows: int
    option: str
    words: str


def check_row_count(source: Source, limits: Sequence[RowLimit], cure: str) -> int | None:
    """Make sure that a source has no more rows than the least of some limits; the number of rows, if there are any.

    :param cure: what lets more pass; `{rows}` is how many there are.
    :raises TooManyRows: it has more.
    :raises ConfigurationError: its rows cannot be counted before they are read.
    """
    if not limits:
        return None
    limit = min(limits, key=lambda each: each.rows)
    count = source.count(limit.rows + 1)
    if count is None:
        raise ConfigurationError(
            f"{limit.option}: what this source gives cannot be counted before it is read; "
            "give a list, a file or a query"
        )
    if count <= limit.rows:
        log.info("%d rows; no more than %d are let through (%s)", count, limit.rows, limit.words)
        return count
    further = (limit.rows + 1) * COUNTED_FURTHER
    count = source.count(further) or count
    many = f"more than {count - 1}" if count == further else str(count)
    raise TooManyRows(
        f"{many} rows are to be sent, and no more than {limit.rows} are let through ({limit.words}). Nothing was sent. "
        f"If they are meant to be: {cure.format(rows=count)}"
    )
