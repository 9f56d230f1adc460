"""A shop's database with realistic orders, some of which no vendor can take. The same orders every time."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any, NamedTuple

SCHEMA = """
    CREATE TABLE customers (
        customer_id INTEGER PRIMARY KEY,
        email TEXT,
        country TEXT NOT NULL,
        signed_up_at TEXT NOT NULL,
        filled_in_form INTEGER NOT NULL
    );
    CREATE TABLE orders (
        order_id INTEGER PRIMARY KEY,
        customer_id INTEGER REFERENCES customers,
        status TEXT NOT NULL,
        placed_at TEXT NOT NULL,
        total REAL NOT NULL,
        currency TEXT NOT NULL,
        discount REAL,
        note TEXT
    );
"""

NAMES = (
    "ada",
    "alan",
    "annie",
    "barbara",
    "edsger",
    "grace",
    "hedy",
    "ioana",
    "joan",
    "katherine",
    "margaret",
    "mihai",
)
COUNTRIES = ("AT", "BG", "DE", "HU", "RO")
CURRENCIES = ("EUR", "EUR", "EUR", "RON")
STATUSES = ("order_placed", "order_paid", "order_shipped", "order_delivered")
NOTES = (None, None, None, "Please ring twice.", "Leave it with the neighbour, mulțumesc!", "Gift: no invoice 🎁")
OPENING = datetime(2026, 2, 1, 8, 0, 0, 250_000)

# What goes wrong in real shops.
LONG_NOTE = "The parcel was returned by the carrier. " * 40
ENDLESS_NOTE = LONG_NOTE * 12
BAD_STATUSES = ("Order Refunded!", "we_will_call", "")


class Order(NamedTuple):
    """One row of the demo's query: an order with its customer's address."""

    order_id: int
    customer_id: int | None
    email: str | None
    status: str
    placed_at: str
    total: float
    currency: str
    discount: float | None
    note: str | None
    filled_in_form: int | None


def fill_shop(path: Path, orders: int) -> None:
    """Make the database anew, with so many orders and a third as many customers, or 60."""
    path.unlink(missing_ok=True)
    random = Random(2026)
    customers = [_customer(random, number) for number in range(1, max(orders // 3, 60) + 1)]
    with closing(sqlite3.connect(path)) as database, database:
        database.executescript(SCHEMA)
        database.executemany("INSERT INTO customers VALUES (?, ?, ?, ?, ?)", customers)
        database.executemany(
            "INSERT INTO orders VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [_order(random, number, len(customers)) for number in range(1, orders + 1)],
        )


def read_orders(path: Path) -> list[Order]:
    """All orders, as the demo's DAG reads them."""
    query = """
        SELECT o.order_id, o.customer_id, c.email, o.status, o.placed_at, o.total, o.currency, o.discount, o.note,
               c.filled_in_form
        FROM orders o LEFT JOIN customers c ON c.customer_id = o.customer_id ORDER BY o.order_id
    """
    with closing(sqlite3.connect(path)) as database:
        return [Order(*row) for row in database.execute(query)]


def known_emails(path: Path) -> list[str]:
    """Addresses of the customers who filled in the form: those whom Embeddables and Vibetrace know."""
    query = "SELECT email FROM customers WHERE filled_in_form AND email IS NOT NULL"
    with closing(sqlite3.connect(path)) as database:
        return [email for (email,) in database.execute(query)]


def _customer(random: Random, number: int) -> tuple[Any, ...]:
    email = None if number % 60 == 7 else f"{random.choice(NAMES)}.{number}@example.com"
    filled_in_form = number % 30 != 3
    signed_up = OPENING - timedelta(minutes=random.randrange(500_000))
    return number, email, random.choice(COUNTRIES), signed_up.isoformat(" "), int(filled_in_form)


def _order(random: Random, number: int, customers: int) -> tuple[Any, ...]:
    customer: int | None = random.randint(1, customers)
    status = random.choice(STATUSES)
    total = round(random.lognormvariate(3.7, 0.8), 2)
    discount = random.choice((None, None, 0.05, 0.1, 0.25))
    note = random.choice(NOTES)
    match random.randrange(1000):
        case n if n < 6:
            customer = None  # a guest
        case n if n < 12:
            status = BAD_STATUSES[n % 3]
        case n if n < 18:
            note = LONG_NOTE
        case n if n < 22:
            note = ENDLESS_NOTE
        case n if n < 28:
            discount = float("inf")  # somebody divided by a total of zero
        case _:
            pass
    placed_at = OPENING + timedelta(minutes=7 * number, milliseconds=random.randrange(1000))
    return number, customer, status, placed_at.isoformat(" "), total, random.choice(CURRENCIES), discount, note
