"""The vendors' APIs on loopback, for demo and tests: `python -m airflow_provider_events.sandbox --port 8099`.

An independent reading of the vendors' documents: nothing here is shared with the code that sends events.
"""

from airflow_provider_events.sandbox.server import Sandbox

__all__ = ["Sandbox"]
