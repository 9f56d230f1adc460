"""The values of a cursor column: what a user says of them, and how far behind one of them rows are read again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from decimal import Decimal
from typing import Any, Literal, get_args

from airflow_provider_events.exceptions import ConfigurationError
from airflow_provider_events.sources.bounds import ColumnKind, TextTimes, local_bound
from airflow_provider_events.values import kind as kind_of

__all__ = ["Axis", "CursorNulls", "CursorOptions"]

CursorNulls = Literal["fail", "exclude"]
TIMES = (ColumnKind.MOMENT, ColumnKind.LOCAL, ColumnKind.DAY, ColumnKind.TEXT)


@dataclass(frozen=True, slots=True)
class CursorOptions:
    """What a user says of a cursor.

    :param columns: one column, or two: rows of equal values of the first are told apart by the second.
    :param initial_value: `"now"`, `"earliest"`, or a value of the first column; where nothing is stored.
    :param lookback: how far behind the stored value rows are read again; a timedelta for times, else a number.
    :param delay: rows younger than this are left for the next run; for times.
    :param on_null: rows without a value fail the run, or are counted as skipped.
    :raises ConfigurationError: naming the option.
    """

    columns: tuple[str, ...]
    initial_value: Any
    lookback: Any = None
    delay: timedelta | None = None
    on_null: CursorNulls = "fail"

    def __post_init__(self) -> None:
        if not 1 <= len(self.columns) <= 2 or not all(isinstance(name, str) and name for name in self.columns):
            raise ConfigurationError(
                'cursor_column has to be the name of a column, or of two: ("updated_at", "order_id"), of which the '
                "second "
                "is unique among rows of one value of the first"
            )
        if len({name.lower() for name in self.columns}) < len(self.columns):
            raise ConfigurationError("cursor_column: the second column has to be another one than the first")
        if self.initial_value is None:
            raise ConfigurationError(
                'cursor_column needs an initial_value, with which the first run begins: "now", "earliest" (every row), '
                "or a value of the column"
            )
        if self.lookback is not None and not _is_length(self.lookback):
            raise ConfigurationError(
                f"lookback has to be a timedelta, or for a column of numbers a number, and not below 0; not "
                f"{kind_of(self.lookback)}"
            )
        if self.delay is not None and not (isinstance(self.delay, timedelta) and self.delay >= timedelta(0)):
            raise ConfigurationError(f"cursor_delay has to be a timedelta, not below 0; not {kind_of(self.delay)}")
        if self.on_null not in get_args(CursorNulls):
            raise ConfigurationError(f"on_cursor_null has to be 'fail' or 'exclude', not {self.on_null!r}")


def _is_length(value: Any) -> bool:
    if isinstance(value, timedelta):
        return value >= timedelta(0)
    return isinstance(value, int | float | Decimal) and not isinstance(value, bool) and value >= 0


@dataclass(frozen=True, slots=True)
class Axis:
    """The values of a cursor column, as moments and back.

    :param name: of the column, for errors.
    :param shape: of texts.
    :param zone: of times that do not say theirs.
    """

    name: str
    kind: ColumnKind
    shape: TextTimes | None
    zone: tzinfo | None

    @property
    def is_time(self) -> bool:
        """Whether values are moments."""
        return self.kind in TIMES

    def bound(self, moment: datetime) -> Any:
        """What stands for a moment, without ever going back where a clock does."""
        if self.kind is ColumnKind.MOMENT:
            return moment.astimezone(UTC)
        if self.shape is not None:
            return self.shape.bound(moment, self.zone)
        local = local_bound(moment, self.zone or UTC)
        return local.date() if self.kind is ColumnKind.DAY else local

    def moment(self, value: Any) -> datetime:
        """The first moment for which a value can stand."""
        if isinstance(value, str):
            value = datetime.fromisoformat(value)
        elif not isinstance(value, datetime):
            value = datetime.combine(value, time())
        moment: datetime = value if value.tzinfo else value.replace(tzinfo=self.zone or UTC, fold=0)
        return moment.astimezone(UTC)

    def behind(self, value: Any, lookback: Any) -> Any:
        """The value from which on rows are read again, where the cursor stands at `value`."""
        if not lookback or value is None:
            return value
        return self.bound(self.moment(value) - lookback) if self.is_time else value - lookback

    def given(self, value: Any, option: str) -> Any:
        """A value that a person wrote, as the column's own.

        :raises ConfigurationError: it is none.
        """
        try:
            if not self.is_time:
                return value if isinstance(value, int | float | Decimal) else _number(value)
            if isinstance(value, str):
                value = datetime.fromisoformat(value.strip())
            if not isinstance(value, date):
                raise ValueError(value)
            if not isinstance(value, datetime) or value.tzinfo is None:
                if self.zone is None and self.kind is not ColumnKind.DAY:
                    raise ConfigurationError(
                        f"{option}: a time without a zone, which {self.name!r} needs: write it as "
                        "2026-11-01T00:00:00+00:00"
                    )
                return self.bound(self.moment(value))
            return self.bound(value)
        except (ValueError, ArithmeticError):
            what = "a time, such as 2026-11-01T00:00:00Z" if self.is_time else "a number"
            raise ConfigurationError(
                f"{option} has to be {what}: that is what cursor_column {self.name!r} holds"
            ) from None


def _number(text: Any) -> Any:
    if not isinstance(text, str):
        raise ValueError
    return int(text) if text.strip().lstrip("+-").isdigit() else Decimal(text)
