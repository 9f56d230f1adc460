"""A cursor during one try of one run: what it begins with, and how it is moved.

Stores know no compare-and-set: the last writer wins. So what is written is always a settled prefix, read again just
before, and never lower than what is there: two runs at once may send rows twice, and lose none.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, TypeVar

import orjson
from tenacity import Retrying, before_sleep_log, retry_if_not_exception_type, stop_after_attempt, wait_exponential

from airflow_provider_events.exceptions import CursorError, CursorNotMoved, EventsError, SourceError
from airflow_provider_events.sources.cursor_state import (
    DIGEST_BYTES,
    MOST_IN_STATE,
    CursorFiles,
    CursorRecord,
    CursorStore,
    Frozen,
    Position,
    SentRows,
)

__all__ = ["AS_GIVEN", "FROZEN", "Begin", "KeptCursor", "Run", "cursor_key", "source_key"]

log = logging.getLogger(__name__)

AS_GIVEN = "as given"  # kind of a value that a person gave, or that was taken before the column held any
FROZEN = "events.cursor"
REST = 10  # times what a write took, until the next one while rows are read

T = TypeVar("T")

# Four attempts in seven seconds: the last save of a delivery has twenty.
patiently = Retrying(
    stop=stop_after_attempt(4),
    wait=wait_exponential(max=4),
    retry=retry_if_not_exception_type(EventsError),
    before_sleep=before_sleep_log(log, logging.WARNING),
    reraise=True,
)


def cursor_key(name: str) -> str:
    """Under which a cursor is stored."""
    return f"cursor:{name}"


def source_key(of: Mapping[str, Any]) -> str:
    """Under which a store knows the name of the cursor of a source."""
    return f"source:{sha256(orjson.dumps(of, option=orjson.OPT_SORT_KEYS)).hexdigest()[:32]}"


@dataclass(frozen=True, slots=True)
class Run:
    """A try of a task.

    :param run_id: of its DAG run.
    :param max_tries: of the task instance, which a clear raises.
    :param resume_after_clear: whether a clear goes on where an unfinished try stopped.
    """

    run_id: str
    max_tries: int = 0
    resume_after_clear: bool = True


@dataclass(frozen=True, slots=True, repr=False)
class Begin:
    """With what a try begins.

    :param lower: where the cursor stands; None where it has not been set.
    :param kind: of its value.
    :param since: value from which on `sent` knows all rows that were sent.
    :param sent: digests of rows that are not to be sent again.
    :param upper: value up to which rows are read, where an earlier try has `fixed` it.
    :param first: whether this try has fixed it itself.
    :param again: whether all rows of the run's bounds are sent once more, for it was cleared.
    """

    lower: Position | None = None
    kind: str = AS_GIVEN
    since: Any = None
    sent: bytes = b""
    upper: Any = None
    fixed: bool = False
    first: bool = True
    again: bool = False


class KeptCursor:
    """One cursor, for one try.

    :param name: under which it is stored.
    :param of: what it is a cursor of, by part, as JSON-safe values.
    :param frozen: keeps the run's bounds for its other tries; None for nothing.
    :param files: keep digests that are too many for the store; None for nothing.
    :param read_only: nothing is written, as for a dry run.
    """

    def __init__(
        self,
        name: str,
        store: CursorStore,
        of: Mapping[str, Any],
        run: Run,
        *,
        frozen: CursorStore | None = None,
        files: CursorFiles | None = None,
        read_only: bool = False,
    ) -> None:
        self.name = name
        self._store = store
        self._of = of
        self._run = run
        self._frozen_store = frozen
        self._files = files
        self._read_only = read_only
        self._record: CursorRecord | None = None
        self._frozen: Frozen | None = None
        self._generation = 1
        self._kept = b""
        self._overtaken = False
        self._superseded = False
        self._again = False
        self._first = False
        self._next_write = 0.0
        self._written: tuple[Position, bytes, bool] | None = None

    @property
    def most(self) -> int:
        """How many digests can be kept."""
        return self._files.most if self._files else MOST_IN_STATE

    # -- beginning -------------------------------------------------------------------------------------------------

    def begin(self) -> Begin:
        """Where the cursor stands, for this try.

        :raises CursorError: it is that of another query, was lost by a change of its name, or cannot go on.
        :raises SourceError: the store gives no answer.
        """
        record = self._record = self._read_first(self._read)
        frozen = self._frozen = self._read_first(self._read_frozen)
        if record is None:
            self._refuse_renamed()
        else:
            self._generation = record.generation
            self._refuse_other(record)
            self._kept = self._sent_of(record)
            self._written = (record.position, self._kept, record.whole)
        if frozen is not None and frozen.generation != self._generation:
            log.info(
                "the cursor %r was set since an earlier try of this run: its bounds do not hold any more", self.name
            )
            frozen = self._frozen = None
        lower = record.position if record else None
        kind, since = (record.kind, record.since) if record else (AS_GIVEN, None)
        if frozen is None:
            return Begin(lower, kind, since, self._kept)
        cleared = frozen.max_tries != self._run.max_tries
        if cleared and (frozen.finished or not self._run.resume_after_clear):
            log.info("this run was cleared: the rows of its bounds are sent once more")
            self._again = True
            earlier = frozen.lower if frozen.lower.value is not None else None
            return Begin(earlier, kind, None, frozen.sent or b"", frozen.upper, fixed=True, first=False, again=True)
        return Begin(lower, kind, since, self._kept, frozen.upper, fixed=True, first=self._first)

    def freeze(self, lower: Position, upper: Any, kind: str) -> None:
        """Fix what the first try of a run reads, for the others; and where the cursor stands, where nothing did.

        :raises SourceError: a store gives no answer.
        """
        if self._read_only:
            return
        if self._frozen_store is not None and self._frozen is None:
            sent = self._kept if len(self._kept) <= MOST_IN_STATE * DIGEST_BYTES else None
            self._frozen = Frozen(
                lower=lower, upper=upper, generation=self._generation, sent=sent, max_tries=self._run.max_tries
            )
            self._read_first(self._write_frozen)
            self._first = True
        self.place(lower, kind)

    def place(self, position: Position, kind: str) -> None:
        """Keep where the first run begins.

        :raises SourceError: the store gives no answer.
        """
        record = self._record
        if not self._read_only and position.value is not None and (record is None or record.kind == AS_GIVEN):
            self._read_first(lambda: self._write(position, kind, position.value, self._kept))

    def _read_first(self, call: Callable[[], T]) -> T:
        try:
            return patiently(call)
        except EventsError:
            raise
        except Exception as error:  # each store has errors of its own
            raise SourceError(
                f"cursor {self.name!r}: {self._store.where} gives no answer ({type(error).__name__}); nothing was sent"
            ) from error

    def _read(self) -> CursorRecord | None:
        stored = self._store.get(cursor_key(self.name))
        return None if stored is None else CursorRecord.from_dict(stored)

    def _read_frozen(self) -> Frozen | None:
        return None if self._frozen_store is None else Frozen.from_dict(self._frozen_store.get(FROZEN))

    def _write_frozen(self) -> None:
        if self._frozen_store is not None and self._frozen is not None:
            self._frozen_store.set(FROZEN, self._frozen.to_dict())

    def _refuse_renamed(self) -> None:
        """A cursor of the very same source, under another name, is most likely this one."""
        other = self._read_first(lambda: self._store.get(source_key(self._of)))
        if other is None or other == self.name:
            return
        raise CursorError(
            f"no cursor for {self.name!r}; it may be stored under {other!r}, which is that of this query. After a "
            f"rename of DAG or task set cursor_name={other!r}; or begin anew by `airflow events cursor set "
            f"{self.name} --to VALUE`"
        )

    def _refuse_other(self, record: CursorRecord) -> None:
        changed = [part for part in self._of if record.of and record.of.get(part) != self._of[part]]
        if changed:
            raise CursorError(
                f"cursor {self.name!r} is that of another query: {', '.join(changed)} changed since it was stored. "
                f"If rows behind it are still the ones to send, `airflow events cursor adopt {self.name}`; else "
                f"`airflow events cursor reset {self.name} --to VALUE`"
            )
        if not record.whole:
            raise CursorError(
                f"cursor {self.name!r} stands before a row that was rejected and is kept in no file, and more rows "
                f"behind it were delivered than a store can note ({MOST_IN_STATE:,}): they would be sent again. Set "
                f"rejected_path and checkpoint_path, and say where to go on: `airflow events cursor set {self.name} "
                "--to VALUE`"
            )

    def _sent_of(self, record: CursorRecord) -> bytes:
        if record.file is None:
            return record.sent
        name = record.file
        data = self._read_first(lambda: None if self._files is None else self._files.read(name))
        if data is None:
            raise CursorError(
                f"cursor {self.name!r}: the file {name} is gone, which knows what was sent near it, or "
                f"checkpoint_path is another one. Put it back; or accept that rows may be sent again, by `airflow "
                f"events cursor set {self.name} --to VALUE`"
            )
        return data

    # -- moving ----------------------------------------------------------------------------------------------------

    def settle(
        self,
        position: Position | None,
        kind: str,
        since: Any,
        sent: bytes,
        *,
        covered: bool,
        ended: bool,
        completed: bool,
    ) -> None:
        """Note what is settled.

        :param position: of the last row of the settled prefix; None while there is none.
        :param since: value from which on `sent` knows all rows that were sent.
        :param sent: digests of settled rows that may be read again, in the order of the source; without those that were
            known at the beginning, unless `covered`.
        :param covered: whether all rows were read again that were known then, so that `sent` holds all that counts.
        :raises CursorNotMoved: the store gives no answer.
        """
        if self._read_only or self._superseded:
            return
        try:
            if ended:
                patiently(self._merge, position, kind, since, sent, covered, completed)
            elif time.monotonic() >= self._next_write:
                self._merge(position, kind, since, sent, covered, completed)
            if completed and self._frozen is not None and not self._frozen.finished:
                upper = self._frozen.upper
                if upper is None and position is not None:
                    upper = position.value
                self._frozen = replace(self._frozen, finished=True, upper=upper, max_tries=self._run.max_tries)
                patiently(self._write_frozen)
        except EventsError:
            raise
        except Exception as error:  # each store has errors of its own
            done = "delivered, cursor not moved" if completed else "the cursor was not moved"
            raise CursorNotMoved(
                f"{done}: cursor {self.name!r} cannot be kept in {self._store.where} ({type(error).__name__})"
            ) from error

    def _merge(
        self, position: Position | None, kind: str, since: Any, sent: bytes, covered: bool, completed: bool
    ) -> None:
        stored = self._read()
        if stored is not None and stored.generation != self._generation:
            self._superseded = True
            log.warning("the cursor %r was set by a person while this run was reading: it is left as it is", self.name)
            return
        if _is_other(stored, self._record):
            self._overtaken = True
            log.warning(
                "another run moved the cursor %r meanwhile: rows may have been sent by both. max_active_runs=1 keeps "
                "runs apart",
                self.name,
            )
            self._record, self._written = stored, None
            if stored is not None:
                self._kept = self._sent_of(stored)
        if self._overtaken or self._again:
            digests = _together(sent, self._kept)
        else:
            digests = sent if covered else sent + self._kept
        position = self._higher(stored, position)
        if position is None:
            return
        if stored is not None and stored.since is not None and (since is None or since < stored.since):
            since = stored.since
        whole = not completed or len(digests) <= self.most * DIGEST_BYTES
        written = (position, digests, whole)
        if written != self._written:
            self._write(position, kind, since, digests, whole=whole)
            self._written = written

    def _higher(self, stored: CursorRecord | None, position: Position | None) -> Position | None:
        """A run never lowers a cursor. Keys are not compared here: only the database knows how."""
        if stored is None or stored.position.value is None:
            return position
        if position is None or position.value < stored.position.value:
            return stored.position
        if position.value == stored.position.value and (self._overtaken or self._again):
            return stored.position
        return position

    def _write(self, position: Position, kind: str, since: Any, sent: bytes, *, whole: bool = True) -> None:
        earlier, started = self._record, time.monotonic()
        file = None
        if len(sent) > MOST_IN_STATE * DIGEST_BYTES:
            if self._files is not None:
                file = self._files.write(sent)
            else:
                log.warning(
                    "cursor %r: more rows were sent near it than can be noted, %d of %d; set checkpoint_path",
                    self.name,
                    MOST_IN_STATE,
                    len(sent) // DIGEST_BYTES,
                )
        record = CursorRecord(
            position=position,
            kind=kind,
            generation=self._generation,
            of=self._of,
            run=self._run.run_id,
            since=since,
            at=datetime.now(UTC),
            sent=b"" if file else sent[: MOST_IN_STATE * DIGEST_BYTES],
            file=file,
            whole=whole,
        )
        self._store.set(cursor_key(self.name), record.to_dict())
        self._next_write = time.monotonic() + REST * (time.monotonic() - started)
        if earlier is None or earlier.of != self._of:
            self._store.set(source_key(self._of), self.name)
        self._record = record
        if self._files is not None and earlier is not None and earlier.file not in (None, file):
            self._files.remove(str(earlier.file))


def _is_other(stored: CursorRecord | None, ours: CursorRecord | None) -> bool:
    """Whether somebody else wrote since we read or wrote."""
    if stored is None or ours is None:
        return stored is not ours
    return (stored.run, stored.at) != (ours.run, ours.at)


def _together(sent: bytes, known: bytes) -> bytes:
    """Digests of both, each once, in order."""
    if not known:
        return sent
    ours = SentRows(sent)
    rest = [known[at : at + DIGEST_BYTES] for at in range(0, len(known), DIGEST_BYTES)]
    return sent + b"".join(digest for digest in rest if digest not in ours)
