"""Postbox, a vendor that does not exist, for `airflow-provider-events`."""
