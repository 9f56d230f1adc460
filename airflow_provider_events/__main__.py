"""`python -m airflow_provider_events`."""

import sys

from airflow_provider_events.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
