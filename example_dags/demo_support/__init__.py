"""What the demo needs beside its DAG: a run in Airflow, and a check of what arrived."""
