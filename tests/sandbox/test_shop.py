"""The shop of the demo and the example DAGs."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from airflow_provider_events.sandbox.shop import SHOP_ZONE, fill_shop, opening_until_now, read_orders


def test_a_shop_is_made_anew_but_nobody_elses_file_is_written_over(tmp_path: Path) -> None:
    shop = tmp_path / "shop.db"
    for orders in (50, 60):
        fill_shop(shop, orders)
        assert len(read_orders(shop)) == orders
    with closing(sqlite3.connect(tmp_path / "mine.db")) as mine, mine:
        mine.execute("CREATE TABLE orders (order_id)")
    for taken in (tmp_path / "mine.db", tmp_path):
        with pytest.raises(FileExistsError, match="name another file"):
            fill_shop(taken, 50)
    command = [sys.executable, "-m", "airflow_provider_events", "sandbox", "--with-shop", str(tmp_path / "mine.db")]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[2], check=False)
    assert ended.returncode == 1
    assert "Traceback" not in ended.stderr
    assert (tmp_path / "mine.db").exists()


def test_the_orders_of_a_shop_may_last_until_now(tmp_path: Path) -> None:
    fill_shop(tmp_path / "shop.db", 60, opening_until_now(60))
    last = datetime.fromisoformat(read_orders(tmp_path / "shop.db")[-1].placed_at).replace(tzinfo=SHOP_ZONE)
    assert timedelta(0) < datetime.now(UTC) - last < timedelta(minutes=3)
