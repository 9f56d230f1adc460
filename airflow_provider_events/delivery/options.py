"""What a caller may ask of a delivery."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, Self, TypedDict, get_args

from airflow_provider_events.events import DeliveryReport
from airflow_provider_events.exceptions import CanaryFailed, ConfigurationError, TooManyRejected
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
    :param canary: how many rows (int), or what share of all (float below 1), go first; the others only once each of
        these has its outcome. A share needs a source that can be counted.
    :param canary_max_rejected: how many (int) or what share (float below 1) of the canary may be rejected. If it is
        more, the others are not sent.
    :param batch_size: events per request.
    :param max_in_flight: requests waiting for an answer at once.
    :param requests_per_minute: upper bound of the request rate.
    :param ordering: `"identity"`: an event of a customer waits until the one before has its outcome, retries included,
        so that none overtakes another. Upserts are always sent so. Costs fuller batches where few customers have many.
    :param on_source_changed: when a retry finds that the source no longer says what the earlier try settled:
        `"restart"` from its beginning, or `"fail"`.
    :param dry_run: read, map, validate and encode, but send nothing.
    :raises ConfigurationError: naming the option, what it got and what it takes.
    """

    on_missing_entry: MissingEntryPolicy = "reject"
    missing_entry_timeout: float = 900.0
    max_rejected: int | float = 0
    max_rows: int | None = None
    canary: int | float | None = None
    canary_max_rejected: int | float = 0
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
        for name in ("max_rejected", "canary_max_rejected", "canary"):
            value: Any = getattr(self, name)
            share = isinstance(value, float) and 0 <= value < 1
            count = isinstance(value, int) and not isinstance(value, bool) and value >= 0
            if not share and not count and not (name == "canary" and value is None):
                raise ConfigurationError(f"{name} has to be a count (int) or a share (float < 1), not {value!r}")
        if self.canary == 0:
            raise ConfigurationError("canary has to be above 0; leave it out to send all rows at once")
        if self.canary is None and self.canary_max_rejected:
            raise ConfigurationError("canary_max_rejected needs canary: how many rows go first")
        for name in ("max_rows", "batch_size", "max_in_flight"):
            value = getattr(self, name)
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

    def check_canary(self, report: DeliveryReport) -> None:
        """Whether the accounts of the canary let the other rows go out.

        :raises CanaryFailed: they do not.
        """
        allowed = self.canary_max_rejected
        if report.rejected <= (allowed * report.read if isinstance(allowed, float) else allowed):
            return
        raise CanaryFailed(
            f"{report.rejected} of the first {report.read} events were rejected (canary_max_rejected={allowed}), so "
            f"the others were not sent: {_most_frequent(report)}",
            report=report,
        )

    def check_rejections(self, report: DeliveryReport) -> None:
        """Whether the accounts of a finished delivery are a success.

        :raises TooManyRejected: they are not; a retry could not help.
        """
        rejected = report.rejected - report.pending + report.expired
        allowed = self.max_rejected
        bound = allowed * report.read if isinstance(allowed, float) else allowed
        arrived = report.delivered + report.resumed + report.healed
        nothing_arrived = report.rejected + report.expired and not self.dry_run and not arrived
        if rejected <= bound and not nothing_arrived:
            return
        limit = "none was delivered" if rejected <= bound else f"max_rejected={allowed}"
        raise TooManyRejected(
            f"{rejected} of {report.read} events were rejected ({limit}): {_most_frequent(report)}", report=report
        )


def _most_frequent(report: DeliveryReport) -> str:
    """The reasons of most rejections, in words."""
    return "; ".join(f"{count} x {reason}" for reason, count in list(report.reasons.items())[:3])


class DeliveryKeywords(TypedDict, total=False):
    """`DeliveryOptions` as keyword arguments."""

    on_missing_entry: MissingEntryPolicy
    missing_entry_timeout: float
    max_rejected: int | float
    max_rows: int | None
    canary: int | float | None
    canary_max_rejected: int | float
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
