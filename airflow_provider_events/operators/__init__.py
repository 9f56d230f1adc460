"""Operators that send events which are already in Airflow."""
