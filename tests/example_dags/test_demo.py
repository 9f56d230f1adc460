"""The demo: it runs, twice, and its check of what arrived notices what is wrong."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_events.sandbox import Sandbox
from airflow_provider_events.sandbox.shop import fill_shop, read_orders
from example_dags import run_demo
from example_dags.demo_support import check

CHECKOUT = Path(__file__).parents[2]
MAPPING = {
    "name": "purchase",
    "identity": {"registered": "customer_id"},
    "timestamp": "placed_at",
    "timezone": "Europe/Bucharest",
    "properties": {
        "purchase_id": "order_id",
        "total_price": "total",
        "currency": "currency",
        "discount": "discount",
        "note": "note",
    },
}


@pytest.mark.airflow
@pytest.mark.slow
def test_the_demo_adds_up_and_can_be_repeated(tmp_path: Path) -> None:
    elsewhere = {**os.environ, "AIRFLOW_HOME": str(tmp_path / "mine"), "AIRFLOW__CORE__DAGS_FOLDER": "/nowhere"}
    for orders in ("200", "60"):
        options = ["--orders", orders, "--home", str(tmp_path / "demo")]
        command = [sys.executable, "-m", "example_dags.run_demo", *options]
        ended = subprocess.run(command, cwd=CHECKOUT, env=elsewhere, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stdout + ended.stderr
        assert "OK Every order" in ended.stdout
        assert ended.stderr == ""
        assert "Traceback" not in ended.stdout
        assert "Warning" not in ended.stdout
        for vendor in run_demo.VENDORS:
            assert f"  {vendor}: " in ended.stdout
    assert not (tmp_path / "mine").exists()


def test_the_shop_is_the_same_every_time_and_has_bad_orders(tmp_path: Path) -> None:
    fill_shop(tmp_path / "one.db", 3000)
    fill_shop(tmp_path / "two.db", 3000)
    orders = read_orders(tmp_path / "one.db")
    assert orders == read_orders(tmp_path / "two.db")
    assert len(orders) == 3000
    assert any(order.customer_id is None for order in orders)
    assert any(order.customer_id and order.email is None for order in orders)
    assert any(order.discount == float("inf") for order in orders)
    assert any(len(order.note or "") > 16_000 for order in orders)
    assert {order.status for order in orders} >= {"Order Refunded!", "we_will_call", ""}
    assert 0 < sum(not order.filled_in_form for order in orders) < 300


@pytest.fixture
def delivered(events_sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> dict[str, Any]:
    """The arguments of a check that finds nothing: 50 orders, delivered to Bloomreach."""
    from airflow_provider_events.hooks.bloomreach import BloomreachHook

    fill_shop(tmp_path / "shop.db", 50)
    orders = read_orders(tmp_path / "shop.db")
    monkeypatch.setenv("AIRFLOW_CONN_BLOOMREACH_DEFAULT", json.dumps(events_sandbox.connection("bloomreach")))
    report = BloomreachHook().deliver(
        [order._asdict() for order in orders],
        mapping=MAPPING,
        max_rejected=0.5,
        rejected_path=str(tmp_path / "rejected"),
    )
    return {"vendor": "bloomreach", "report": report.to_dict(), "orders": orders, "sandbox": events_sandbox}


def test_the_check_finds_nothing_when_all_is_well(delivered: dict[str, Any]) -> None:
    assert check.problems(**delivered) == []


@pytest.mark.parametrize("count", ["read", "delivered", "rejected", "skipped", "unsent"])
def test_the_check_notices_a_wrong_count(delivered: dict[str, Any], count: str) -> None:
    delivered["report"][count] += 1
    assert check.problems(**delivered)


def test_the_check_notices_a_missing_and_a_changed_event(delivered: dict[str, Any]) -> None:
    placed = next(order for order in delivered["orders"] if order.customer_id)
    delivered["orders"].remove(placed)
    delivered["orders"].append(placed._replace(total=placed.total + 1))
    found = check.problems(**delivered)
    assert any("missing" in text for text in found)
    assert any("nobody expected" in text for text in found)


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("")
    assert run_demo.main(["--home", str(tmp_path / "file" / "demo")]) == 1
    assert "--home" in capsys.readouterr().out
