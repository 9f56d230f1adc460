"""What a caller may ask of a delivery."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, get_args

from airflow_provider_events.events import DeliveryReport
from airflow_provider_events.exceptions import ConfigurationError, TooManyRejected

__all__ = ["DeliveryOptions", "MissingEntryPolicy"]

MissingEntryPolicy = Literal["reject", "skip", "fail"]


@dataclass(frozen=True, slots=True)
class DeliveryOptions:
    """Delivery options; None means the connection's value, else the vendor's.

    :param on_missing_entry: an event whose customer has no entry is rejected, skipped, or ends the delivery (`"fail"`).
    :param max_rejected: how many events (int) or what share of those read (float below 1) may be rejected.
    :param batch_size: events per request.
    :param max_in_flight: requests waiting for an answer at once.
    :param requests_per_minute: upper bound of the request rate.
    :param dry_run: read, map, validate and encode, but send nothing.
    :raises ConfigurationError: naming the option, what it got and what it takes.
    """

    on_missing_entry: MissingEntryPolicy = "reject"
    max_rejected: int | float = 0
    batch_size: int | None = None
    max_in_flight: int | None = None
    requests_per_minute: float | None = None
    dry_run: bool = False

    def __post_init__(self) -> None:
        if self.on_missing_entry not in get_args(MissingEntryPolicy):
            raise ConfigurationError(
                f"on_missing_entry has to be one of {', '.join(get_args(MissingEntryPolicy))}, "
                f"not {self.on_missing_entry!r}"
            )
        allowed = self.max_rejected
        share = isinstance(allowed, float) and 0 <= allowed < 1
        if not share and not (isinstance(allowed, int) and not isinstance(allowed, bool) and allowed >= 0):
            raise ConfigurationError(f"max_rejected has to be a count (int) or a share (float < 1), not {allowed!r}")
        for name in ("batch_size", "max_in_flight"):
            value: Any = getattr(self, name)
            if value is not None and (not isinstance(value, int) or isinstance(value, bool) or value < 1):
                raise ConfigurationError(f"{name} has to be a whole number of at least 1, not {value!r}")
        rate: Any = self.requests_per_minute
        if rate is not None and (isinstance(rate, bool) or not isinstance(rate, int | float) or not rate > 0):
            raise ConfigurationError(f"requests_per_minute has to be a number above 0, not {rate!r}")

    def judge(self, report: DeliveryReport) -> None:
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
