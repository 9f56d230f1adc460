"""DAGs to read and to copy, and the demo: `python -m example_dags.run_demo`."""
