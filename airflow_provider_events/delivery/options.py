"""What a caller may ask of a delivery."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, Self, TypedDict, get_args

from airflow_provider_events.events import DeliveryReport
from airflow_provider_events.exceptions import ConfigurationError, TooManyRejected
from airflow_provider_events.shown import did_you_mean

__all__ = ["DeliveryKeywords", "DeliveryOptions", "Limits", "MissingEntryPolicy", "Ordering", "SourceChangedPolicy"]

MissingEntryPolicy = Literal["reject", "skip", "fail", "wait"]
Ordering = Literal["none", "identity"]
SourceChangedPolicy = Literal["restart", "fail"]


@dataclass(frozen=True, slots=True)
class DeliveryOptions:
    """Delivery options; None means the connection's value, else the vendor's.

    The only list of them: `EventsHook.deliver` and the batch operators take what stands here. Type checkers see them by
    `DeliveryKeywords` below.

    :param on_missing_entry: an event whose customer has no entry is rejected, skipped, ends the delivery (`"fail"`), or
        is held and tried again (`"wait"`) while the others go on.
    :param missing_entry_timeout: seconds after which a held event is rejected.
    :param max_rejected: how many events (int) or what share of those read (float below 1) may be rejected.
    :param max_rows: how many rows a delivery may have: they are counted first, no further than needed, and where there
        are more nothing is sent. A generator cannot be counted.
    :param batch_size: events per request.
    :param max_in_flight: requests waiting for an answer at once.
    :param requests_per_minute: upper bound of the request rate.
    :param ordering: `"identity"`: the events of one identity never overtake each other, retries included. Costs fuller
        batches, and one customer's trouble holds up those who share its lane.
    :param on_source_changed: when a retry finds that the source no longer says what the earlier try settled:
        `"restart"` from its beginning, or `"fail"`.
    :param dry_run: read, map, validate and encode, but send nothing.
    :raises ConfigurationError: naming the option, what it got and what it takes.
    """

    on_missing_entry: MissingEntryPolicy = "reject"
    missing_entry_timeout: float = 900.0
    max_rejected: int | float = 0
    max_rows: int | None = None
    batch_size: int | None = None
    max_in_flight: int | None = None
    requests_per_minute: float | None = None
    ordering: Ordering = "none"
    on_source_changed: SourceChangedPolicy = "restart"
    dry_run: bool = False

    def __post_init__(self) -> None:
        for name, policy in (
            ("on_missing_entry", MissingEntryPolicy),
            ("ordering", Ordering),
            ("on_source_changed", SourceChangedPolicy),
        ):
            if getattr(self, name) not in get_args(policy):
                raise ConfigurationError(
                    f"{name} has to be one of {', '.join(get_args(policy))}, not {getattr(self, name)!r}"
                )
        allowed = self.max_rejected
        share = isinstance(allowed, float) and 0 <= allowed < 1
        if not share and not (isinstance(allowed, int) and not isinstance(allowed, bool) and allowed >= 0):
            raise ConfigurationError(f"max_rejected has to be a count (int) or a share (float < 1), not {allowed!r}")
        for name in ("max_rows", "batch_size", "max_in_flight"):
            value: Any = getattr(self, name)
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise ConfigurationError(f"{name} has to be a whole number of at least 1, not {value!r}")
        for name in ("requests_per_minute", "missing_entry_timeout"):
            value = getattr(self, name)
            if value is not None and (
                isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf")
            ):
                raise ConfigurationError(f"{name} has to be a number above 0, not {value!r}")

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """What the options are called."""
        return tuple(field.name for field in fields(cls))

    @classmethod
    def of(cls, given: Mapping[str, Any], others: Iterable[str] = ()) -> Self:
        """The options that keyword arguments give.

        :param others: what else may be given beside them, for the nearest neighbour of an unknown one.
        :raises ConfigurationError: one is unknown or wrong.
        """
        for name in given:
            if name not in cls.names():
                raise ConfigurationError(f"{name} is no option; {did_you_mean(name, [*cls.names(), *others])}")
        return cls(**given)

    def check_rejections(self, report: DeliveryReport) -> None:
        """Whether the accounts of a finished delivery are a success.

        :raises TooManyRejected: they are not; a retry could not help.
        """
        rejected = report.rejected
        allowed = self.max_rejected
        bound = allowed * report.read if isinstance(allowed, float) else allowed
        nothing_arrived = rejected and not self.dry_run and not report.delivered + report.resumed
        if rejected <= bound and not nothing_arrived:
            return
        reasons = "; ".join(f"{count} x {reason}" for reason, count in list(report.reasons.items())[:3])
        limit = "none was delivered" if rejected <= bound else f"max_rejected={allowed}"
        raise TooManyRejected(f"{rejected} of {report.read} events were rejected ({limit}): {reasons}", report=report)


class DeliveryKeywords(TypedDict, total=False):
    """`DeliveryOptions` as keyword arguments."""

    on_missing_entry: MissingEntryPolicy
    missing_entry_timeout: float
    max_rejected: int | float
    max_rows: int | None
    batch_size: int | None
    max_in_flight: int | None
    requests_per_minute: float | None
    ordering: Ordering
    on_source_changed: SourceChangedPolicy
    dry_run: bool


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds of one delivery.

    :param batch_size: events per request.
    :param max_in_flight: requests waiting for an answer at once.
    :param drain_seconds: after a stop, requests in flight may take so long to be answered.
    :param entry_delay_seconds: for so long a missing entry may be one that was made just before and is to be seen soon;
        then `on_missing_entry` applies.
    """

    batch_size: int
    max_in_flight: int
    drain_seconds: float = 15.0
    entry_delay_seconds: float = 0.0
