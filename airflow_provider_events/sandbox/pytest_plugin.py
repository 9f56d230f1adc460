"""A fixture for users' tests.

In the outermost conftest.py: `pytest_plugins = ["airflow_provider_events.sandbox.pytest_plugin"]`.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from airflow_provider_events.sandbox.server import Sandbox


@pytest.fixture(scope="session")
def _events_sandbox_server() -> Iterator[Sandbox]:
    with Sandbox() as sandbox:
        yield sandbox


@pytest.fixture
def events_sandbox(_events_sandbox_server: Sandbox) -> Sandbox:
    """A running sandbox that has seen nothing yet: one server for the session, emptied for each test."""
    _events_sandbox_server.reset()
    return _events_sandbox_server
