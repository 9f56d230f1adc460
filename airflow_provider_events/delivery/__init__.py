"""How events travel: a bounded window of requests, pacing, retries and accounts. Knows no vendor and no Airflow."""
