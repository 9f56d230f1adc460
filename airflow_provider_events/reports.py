"""What is known afterwards: the receipt for one event, and the report of a delivery."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

__all__ = ["DeliveryReport", "Receipt"]

VERSION = 1


@dataclass(frozen=True, slots=True)
class Receipt:
    """What is known of one delivered event.

    :param vendor: connection type of the vendor.
    :param event_id: the idempotency key it was sent under (32 hex digits).
    :param status: HTTP status of the accepting answer.
    :param reference: the vendor's id of the customer's entry, where it tells (Embeddables).
    :param request_id: the vendor's request id, where it tells.
    :param requests: HTTP requests it took.
    """

    vendor: str
    event_id: str
    status: int
    reference: str | None = None
    request_id: str | None = None
    requests: int = 1

    def to_dict(self) -> dict[str, Any]:
        """The same as a plain dictionary, for an XCom."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class DeliveryReport:
    """The accounts of one delivery: `read == delivered + rejected + skipped + resumed + unsent`.

    :param vendor: connection type of the vendor.
    :param read: rows or events taken from the source.
    :param delivered: accepted by the vendor.
    :param rejected: refused for good, by the vendor or by the check before sending.
    :param skipped: no entry, and `on_missing_entry="skip"`.
    :param resumed: delivered by an earlier try of the same task.
    :param unsent: read, but without an outcome: the delivery was stopped, or it was a dry run.
    :param requests: HTTP requests.
    :param retries: how many of the requests repeated an earlier one.
    :param seconds: wall-clock time.
    :param reasons: reason of rejection -> count; more than 50 different ones are counted as `other reasons`.
    :param rejected_path: where the rejected events are, if anywhere.
    :param conn_id: the Airflow connection.
    :param pending: of the rejected, those that are kept for the next run; see `pending_path`.
    :param healed: kept by earlier runs, and delivered by this one.
    :param expired: kept by earlier runs, and given up by this one.
    :ivar version: of these fields, for whoever keeps them: 1. Later ones may add fields, and take none away.
    :raises ValueError: the sum is another one, or a count is below 0.
    """

    vendor: str
    read: int = 0
    delivered: int = 0
    rejected: int = 0
    skipped: int = 0
    resumed: int = 0
    unsent: int = 0
    requests: int = 0
    retries: int = 0
    seconds: float = 0.0
    reasons: Mapping[str, int] = field(default_factory=dict)
    rejected_path: str | None = None
    conn_id: str = ""
    pending: int = 0
    healed: int = 0
    expired: int = 0
    version: int = field(default=VERSION, init=False)

    def __post_init__(self) -> None:
        outcomes = (self.delivered, self.rejected, self.skipped, self.resumed, self.unsent)
        if self.read != sum(outcomes) or min(outcomes) < 0:
            counts = "delivered, rejected, skipped, resumed and unsent"
            raise ValueError(f"the accounts do not close: {self.read} read, but {counts} are {outcomes}")

    def to_dict(self) -> dict[str, Any]:
        """The same as a plain dictionary, for an XCom."""
        return {**asdict(self), "reasons": dict(self.reasons)}
