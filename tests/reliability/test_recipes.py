"""The recipes of the example DAGs do what they say."""

from __future__ import annotations

from datetime import timedelta

import airflow
import pytest

from airflow_provider_events.exceptions import (
    CredentialsRefused,
    DeliveryInterrupted,
    EndpointRefused,
    RateLimited,
    SourceError,
    VendorUnavailable,
)

pytestmark = pytest.mark.airflow

HAS_POLICIES = tuple(map(int, airflow.__version__.split(".")[:2])) >= (3, 3)


@pytest.mark.skipif(not HAS_POLICIES, reason="retry policies came with Airflow 3.3")
def test_the_retry_policy_reads_our_errors() -> None:
    from airflow.sdk.definitions.retry_policy import RetryAction

    from example_dags.retry_policy import NIGHT, AsTheVendorSays

    def decide(error: Exception, try_number: int = 1) -> tuple[RetryAction, timedelta | None]:
        decision = AsTheVendorSays().evaluate(error, try_number, 3)
        return decision.action, decision.retry_delay

    assert decide(CredentialsRefused("401", conn_id="c")) == (RetryAction.FAIL, None)
    assert decide(EndpointRefused("404", conn_id="c")) == (RetryAction.FAIL, None)
    assert decide(RateLimited("429", retry_after=1200.0)) == (RetryAction.RETRY, timedelta(minutes=20))
    assert decide(RateLimited("429")) == (RetryAction.DEFAULT, None)
    assert decide(VendorUnavailable("503")) == (RetryAction.DEFAULT, None)
    assert decide(VendorUnavailable("503"), try_number=3) == (RetryAction.RETRY, NIGHT)
    assert decide(DeliveryInterrupted("stopped")) == (RetryAction.DEFAULT, None)
    assert decide(SourceError("gone")) == (RetryAction.DEFAULT, None)


def test_the_shared_quota_is_shared_out(airflow_database: None) -> None:
    """Together the tasks that may run at once ask for no more than the vendor publishes."""
    from tests.example_dags.conftest import FOLDER, load

    tasks = load(FOLDER / "shared_quota.py").dags["events_shared_quota"].tasks
    assert load(FOLDER / "shared_quota.py").dags["events_shared_quota"].max_active_tasks == len(tasks)
    assert sum(task.delivery_options["requests_per_minute"] for task in tasks) == 500
