"""One task's wait for entries: the search, when it began, and where both are remembered."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_events.exceptions import ConfigurationError
from airflow_provider_events.lookups.search import Search

if TYPE_CHECKING:
    from airflow_provider_events.delivery.checkpoint import CheckpointStore
    from airflow_provider_events.hooks.base import EventsHook
    from airflow_provider_events.lookups.search import Identity

__all__ = ["Wait"]

log = logging.getLogger(__name__)


class Wait:
    """Remembers positions and times, no identity. A retry goes on with it, a cleared task begins anew.

    `not_before` is the end of a pause that the vendor asked for, in seconds since the epoch.

    :param require: `"all"`, `"any"`, or how many of the different identities have to be found.
    :param timeout_seconds: from the first look on, over all tries.
    :param store: where it is remembered; None: nowhere.
    :param progress: packed, of the trigger that waited; else what is remembered.
    :raises ConfigurationError: more customers are required than there are different ones.
    """

    def __init__(
        self,
        identities: Sequence[Identity],
        require: str | int,
        timeout_seconds: float,
        store: CheckpointStore | None,
        progress: Mapping[str, Any] | None = None,
    ) -> None:
        self.identities = identities
        self._store = store
        self._remembered = self._load()
        needed = {"all": None, "any": 1}[require] if isinstance(require, str) else require
        self.search = Search(identities, needed=needed, progress=progress or self._remembered.get("progress"))
        if self.search.needed > self.search.different:
            raise ConfigurationError(
                f"require={require!r} asks for more customers than the {self.search.different} different ones given"
            )
        same = self._remembered.get("progress", {}).get("fingerprint") == self.search.progress.fingerprint
        self._started: float = self._remembered["started"] if same else time.time()
        self.not_before: float = self._remembered.get("not_before", 0.0) if same else 0.0
        self.deadline = self._started + timeout_seconds
        self.hook: EventsHook | None = None

    @property
    def enough(self) -> bool:
        """As many were found as are required."""
        return self.search.enough

    def result(self) -> dict[str, Any]:
        """The identities by whether their entry was found, in the order of the list."""
        return {"found": [dict(i) for i in self.search.found()], "missing": [dict(i) for i in self.search.missing()]}

    def status(self) -> str:
        """Counts, for the log."""
        search = self.search
        return f"{len(search.progress.found)} of {search.different} entries found, {search.needed} needed"

    def save(self) -> None:
        """Remember it, if there is news; a store that fails costs look-ups, not the task."""
        value = {"started": self._started, "not_before": self.not_before, "progress": self.search.progress.pack()}
        if self._store is None or value == self._remembered:
            return
        try:
            self._store.save(value, completed=self.enough)
        except Exception as error:  # each store has errors of its own
            log.warning("what was found cannot be remembered (%s)", type(error).__name__)
        self._remembered = value

    def _load(self) -> Mapping[str, Any]:
        try:
            value = self._store.load() if self._store else None
        except Exception as error:  # each store has errors of its own
            log.warning("what was found before cannot be read (%s)", type(error).__name__)
            value = None
        if not value or "progress" not in value:
            return {}
        return {"not_before": 0.0, **{key: value[key] for key in ("started", "not_before", "progress") if key in value}}
