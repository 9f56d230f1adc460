"""What the accounts say of rejected events, and what they must not."""

from __future__ import annotations

import logging

import pytest

from airflow_provider_events.contract import Answer, Outcome, Request, Verdict
from airflow_provider_events.delivery.accounts import MAX_REASONS, OTHER_REASONS, Counters, Ledger
from airflow_provider_events.delivery.observers import LogObserver
from airflow_provider_events.delivery.progress import Meter
from airflow_provider_events.exceptions import EventsError
from tests.delivery.harness import KeptSink, PlainWire, Run, chunked, rows, said, simulate


class Talkative(PlainWire):
    """Rejects everything with the customer's id in its words."""

    def __init__(self, reason: str) -> None:
        super().__init__()
        self._reason = reason

    def read(self, answer: Answer, count: int) -> Outcome | list[Outcome]:
        """See `PlainWire.read`."""
        return Outcome(Verdict.REJECTED, "c", self._reason.format(answer.body.decode().strip('"')))


async def repeat(request: Request) -> Answer:
    """The request's body, as it is."""
    return said(400, (request.body or b"").decode())


def test_reasons_do_not_differ_by_the_customer() -> None:
    run = Run(repeat, wire=Talkative("customer {} is odd"), batch_size=1)
    report = simulate(run.through(chunked(rows(300)[99:])))
    assert report.reasons == {"c: customer *** is odd": 201}


def test_the_number_of_reasons_is_bounded_and_the_most_common_comes_first() -> None:
    run = Run(repeat, wire=Talkative("{}!"), batch_size=1)
    report = simulate(run.through(chunked(rows(99))))  # ids of one or two digits are not masked
    assert len(report.reasons) == MAX_REASONS + 1
    assert next(iter(report.reasons.items())) == (OTHER_REASONS, 99 - MAX_REASONS)
    assert sum(report.reasons.values()) == report.rejected == 99


@pytest.mark.parametrize(("verdict", "path"), [("delivered", None), ("rejected", "memory")])
def test_a_report_names_the_file_of_rejected_events_if_there_are_any(verdict: str, path: str | None) -> None:
    async def answer(request: Request) -> Answer:
        return said(200, verdict)

    run = Run(answer, batch_size=1, dead_letters=KeptSink())
    assert simulate(run.through(chunked(rows(3)))).rejected_path == path


def test_progress_is_one_line_of_numbers(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        observer = LogObserver(logging.getLogger("test"))
        counters = Counters(read=10, delivered=7, rejected=2, skipped=1, requests=5, retries=3)
        observer.progress(Meter("webengage", "webengage_default").read(counters))
    (progress,) = caplog.messages
    assert progress.startswith("10 read, 7 delivered, 2 rejected, 1 skipped; 5 requests (3 repeated); ")


def test_more_outcomes_than_rows_are_an_error_and_no_report() -> None:
    ledger = Ledger("webengage")
    ledger.took(1)
    ledger.counters.delivered = 2
    with pytest.raises(EventsError, match="do not close: 1 read, 2 accounted for"):
        ledger.report()
