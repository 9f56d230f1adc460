"""Deliver customer events from Apache Airflow to Embeddables, Vibetrace, WebEngage and Bloomreach Engagement."""

__version__ = "0.1.0"
