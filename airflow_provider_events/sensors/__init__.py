"""Sensors of Airflow."""
