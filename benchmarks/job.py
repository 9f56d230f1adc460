"""What one run is asked to do, as the process that does it gets it."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["Job"]


@dataclass(frozen=True)
class Job:
    """One run of one client.

    :param client: who delivers.
    :param vendor: to whom.
    :param rows: how many rows.
    :param in_flight: requests that wait for an answer at once.
    :param url: of the stub.
    :param folder: for what the run has to write.
    :param database: path of the SQLite file; or the JSON of an Airflow connection to PostgreSQL.
    :param source: what is delivered, of `SOURCES`.
    :param keyset: read page by page by key.
    :param bad_percent: rows without an identity.
    :param requests_per_minute: a quota to keep; None lifts the vendor's, which would hide what a client can do.
    :param dry_run: everything but the network.
    :param warm_up: rows delivered before the measurement, so that lazy imports are not part of it.
    """

    client: str
    vendor: str
    rows: int
    in_flight: int
    url: str = ""
    folder: str = ""
    database: str = ""
    source: str = "sql"
    keyset: bool = False
    bad_percent: int = 0
    requests_per_minute: float | None = None
    dry_run: bool = False
    warm_up: int = 200

    @property
    def bad(self) -> int:
        """How many rows have to be rejected."""
        return sum(1 for n in range(1, self.rows + 1) if n % 100 < self.bad_percent) if self.bad_percent else 0

    def to_dict(self) -> dict[str, Any]:
        """JSON-safe."""
        return asdict(self)
