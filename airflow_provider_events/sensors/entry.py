"""Waits until customers exist at the vendor."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal

from airflow_provider_events._compat import (
    AirflowException,
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    BaseSensorOperator,
    PokeReturnValue,
    conf,
)
from airflow_provider_events.events import checked_identities
from airflow_provider_events.exceptions import (
    ConfigurationError,
    DeliveryError,
    EventsError,
    RateLimited,
    SourceError,
)
from airflow_provider_events.frames import name_connection
from airflow_provider_events.operators.delivery import config_option, fail_without_retry, one_line, task_name
from airflow_provider_events.operators.paths import GivenPath
from airflow_provider_events.operators.redacted import CountedField, listed

if TYPE_CHECKING:
    from airflow_provider_events._compat import Context
    from airflow_provider_events.sensors.wait import Wait

__all__ = ["EntryExistsSensor"]

Identity = Mapping[str, str | int]

# A trigger's arguments are one row; a TEXT column of MySQL holds 64 KiB, and encryption takes a third of that.
MAX_INLINE_CHARS = 32_000
# A look that is under way at the timeout may end, and Airflow's own timeout comes only after that.
LAST_LOOK_SECONDS = 30.0
GRACE_SECONDS = 120.0


# Without the guard that Airflow 2 puts around it, which takes the call from our own `execute` for a nested operator.
_execute = getattr(BaseSensorOperator.execute, "__wrapped__", BaseSensorOperator.execute)


class EntryExistsSensor(BaseSensorOperator):
    """Waits until entries exist; returns `{"found": [identity, …], "missing": […]}`. It only reads.

    One look asks for all that were not found before. Poke, reschedule and deferrable mode take the same look; the
    deferrable one takes the first on the worker, so that errors show at once. What was found is remembered from look
    to look; in reschedule mode, and from try to try, by Airflow's task state store (3.3) or in `checkpoint_path`.

    :param conn_id: connection of any of the four vendors (templated).
    :param identity: one customer, e.g. `{"email": "{{ params.email }}"}` (templated); or
    :param identities: a list of them, an XComArg or a template that gives one.
    :param require: `"all"`, `"any"`, or how many of the different identities have to be found. Where fewer than all
        suffice, `missing` holds those that were not found or not asked for any more.
    :param deferrable: wait on the triggerer. Default: Airflow's `[operators] default_deferrable`.
    :param checkpoint_path: folder in Airflow's object storage, or a local one that workers and triggerers share, for
        lists that are too long for Airflow's database, and for what was found so far (templated). Default: Airflow's
        `[events] checkpoint_path`, else none.

    `timeout` bounds the wait. Airflow's `execution_timeout` does not count while the task is deferred.

    `soft_fail` skips where the entries were not found in time, and nowhere else: a wrong connection or a vendor that
    fails is an error in every mode. Refused credentials fail at once, a quota that is used up is waited for.

    :raises ConfigurationError: at DAG parse, naming the argument.
    """

    identity = CountedField("ids")
    identities = CountedField()
    template_fields: Sequence[str] = ("conn_id", "identity", "identities", "checkpoint_path")

    def __init__(
        self,
        *,
        conn_id: str,
        identity: Identity | str | None = None,
        identities: Collection[Identity] | str | None = None,
        require: Literal["all", "any"] | int = "all",
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        checkpoint_path: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if identity is not None and identities is not None:
            raise ConfigurationError("EntryExistsSensor: give identity or identities, not both")
        if identity is None and identities is None:
            raise ConfigurationError("EntryExistsSensor: needs an identity, or identities")
        if require not in ("all", "any") and (type(require) is not int or require < 1):
            raise ConfigurationError(f"EntryExistsSensor: require has to be 'all', 'any' or a count, not {require!r}")
        self.conn_id = conn_id
        self._identity: Any = identity
        self._identities: Any = identities
        self.require = require
        self.deferrable = deferrable
        self.checkpoint_path = checkpoint_path
        self._checkpoint_path = GivenPath("checkpoint_path", checkpoint_path)
        self._wait: Wait | None = None

    @one_line
    def execute(self, context: Context) -> Any:
        """Look until enough are found, or until `timeout`."""
        with self._judged():
            wait = self._wait = self._begin(context)
            if not self.deferrable:
                return _execute(self, context)
            packed = self._packed(wait)
            try:
                found = self.poke(context)
            except EventsError as error:
                if not self.silent_fail:
                    raise
                self.log.warning("%s; looking again later", error)
                found = PokeReturnValue(False)
            return found.xcom_value if found else self._defer(context, wait, packed)

    @one_line
    def poke(self, context: Context) -> PokeReturnValue:
        """One look."""
        wait = self._wait = self._wait or self._begin(context)
        with fail_without_retry(self.conn_id):
            if not wait.enough and time.time() >= wait.not_before:
                self._look(wait)
        return PokeReturnValue(wait.enough, wait.result() if wait.enough else None)

    @one_line
    def execute_complete(self, context: Context, event: Mapping[str, Any]) -> dict[str, Any]:
        """What the trigger found, or why it ended.

        :raises AirflowSensorTimeout: not enough were found in time.
        """
        if path := self._folder(context):
            from airflow_provider_events.triggers.waiting_list import WaitingList

            WaitingList(path).remove()
        wait = self._wait = self._begin(context, event["progress"])
        with fail_without_retry(self.conn_id):
            if event["status"] == "error":
                if not event["retryable"]:
                    raise AirflowFailException(event["message"])
                wait.save()
                raise DeliveryError(event["message"], conn_id=self.conn_id)
        if event["status"] == "timeout":
            raise AirflowSensorTimeout(wait.status())
        if not wait.enough:
            raise SourceError("the identities are no longer those that this task was waiting for")
        wait.save()
        self.log.info("%s", wait.status())
        return wait.result()

    @one_line
    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Airflow's way back from a trigger; here too `soft_fail` skips for a timeout only."""
        with self._judged():
            return super().resume_execution(next_method, next_kwargs, context)

    # -- inside ------------------------------------------------------------------------------------------------------

    def _begin(self, context: Context, progress: Mapping[str, Any] | None = None) -> Wait:
        """The wait as an earlier look or try left it."""
        from airflow_provider_events.operators.checkpoints import checkpoint_store
        from airflow_provider_events.sensors.wait import Wait

        with fail_without_retry(self.conn_id):
            identities = self._wanted()
            store = checkpoint_store(context, self._path(), task_name(context["ti"]), False)
            wait = Wait(identities, self.require, self.timeout, store, progress)
        if not identities:
            self.log.warning("there is nothing to wait for: identities is empty")
        return wait

    def _wanted(self) -> list[Identity]:
        if self._identity is None:
            identities = list(listed(self._identities, "identities"))
        elif isinstance(self._identity, str):
            identities = list(listed(f"[{self._identity}]", "identity"))
        else:
            identities = [self._identity]
        return checked_identities(identities)

    def _packed(self, wait: Wait) -> str:
        """The list as a trigger takes it.

        :raises AirflowFailException: it is too long for Airflow's database, and there is no other place for it.
        """
        from airflow_provider_events.triggers.waiting_list import pack

        packed = pack(wait.identities)
        if len(packed) > MAX_INLINE_CHARS and self._path() is None:
            raise AirflowFailException(
                f"{len(wait.identities)} identities are too many for Airflow's database, where a deferred task keeps "
                "them: set checkpoint_path (or Airflow's [events] checkpoint_path), or wait with deferrable=False and "
                "mode='reschedule'"
            )
        return packed

    def on_kill(self) -> None:
        """Stop asking."""
        if self._wait is not None and self._wait.hook is not None:
            self._wait.hook.stop()

    def _look(self, wait: Wait) -> None:
        from airflow_provider_events.hooks.base import EventsHook

        if wait.hook is None:
            hook = EventsHook.for_connection(self.conn_id)
            wait.search.prepare(hook.vendor)
            wait.hook = hook
        hook = wait.hook
        seconds = max(LAST_LOOK_SECONDS, wait.deadline - time.time())
        try:
            hook.run(lambda: hook.client.look_once(wait.search, seconds=seconds))
        except RateLimited as error:
            wait.not_before = time.time() + (error.retry_after or 0.0)
            self.log.warning("%s; looking again later", error)
        finally:
            wait.save()
        self.log.info("%s", wait.status())

    def _defer(self, context: Context, wait: Wait, packed: str) -> None:
        from airflow_provider_events.triggers.entry import EntryTrigger
        from airflow_provider_events.triggers.waiting_list import WaitingList

        now = time.time()
        if now >= wait.deadline:
            raise AirflowSensorTimeout(wait.status())
        path = self._folder(context)
        if path is not None:
            WaitingList(path).write(packed)
        self.defer(
            trigger=EntryTrigger(
                conn_id=self.conn_id,
                needed=wait.search.needed,
                deadline=wait.deadline,
                first_look=max(now + self.poke_interval, wait.not_before),
                interval_seconds=self.poke_interval,
                backoff=self.exponential_backoff,
                max_interval_seconds=self.max_wait.total_seconds() if self.max_wait else None,
                tolerant=self.silent_fail,
                identities=None if path else packed,
                path=path,
                progress=wait.search.progress.pack(),
            ),
            method_name="execute_complete",
            timeout=timedelta(seconds=wait.deadline - now + GRACE_SECONDS),
        )

    def _path(self) -> str | None:
        return self._checkpoint_path.checked(self.checkpoint_path) or config_option("checkpoint_path")

    def _folder(self, context: Context) -> str | None:
        """Where this try keeps its list; None for the trigger's own row."""
        path = self._path()
        if path is None or self._identity is not None:
            return None
        ti = context["ti"]
        return f"{path.rstrip('/')}/{task_name(ti)}/try_{ti.try_number}"

    @contextmanager
    def _judged(self) -> Iterator[None]:
        """`soft_fail` is for what was not found in time, `never_fail` for everything; failures name the connection."""
        try:
            yield
        except AirflowSkipException as skip:
            cause = skip.__cause__
            if self.soft_fail and isinstance(cause, AirflowException) and not isinstance(cause, AirflowSensorTimeout):
                raise cause from cause.__cause__
            self._answered()
            raise
        except (EventsError, AirflowFailException, AirflowSensorTimeout) as error:
            name_connection(error, f"connection {self.conn_id!r}")
            if self.soft_fail and isinstance(error, AirflowSensorTimeout):
                self._answered()
            if self.never_fail or (self.soft_fail and isinstance(error, AirflowSensorTimeout)):
                raise AirflowSkipException(str(error)) from error
            raise

    def _answered(self) -> None:
        """A vendor that never answered has not said that anything is missing.

        :raises DeliveryError: it never did.
        """
        wait = self._wait
        if self.soft_fail and wait is not None and not wait.enough and not wait.search.progress.answered:
            words = f"connection {self.conn_id!r}: {wait.status()}, and the vendor never answered"
            raise DeliveryError(words, conn_id=self.conn_id) from None
