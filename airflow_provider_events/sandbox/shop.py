"""A shop's database with realistic orders, some of which no vendor can take: for the demo and the example DAGs.

The orders are the same every time, but for the day they begin on. Times are local times of the shop, as ISO text.
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

SHOP_ZONE = ZoneInfo("Europe/Bucharest")
APPLICATION_ID = 0x53484F50  # in the header of the file: only what carries it is ever made anew
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
BETWEEN_ORDERS = timedelta(minutes=7)

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


def fill_shop(path: Path, orders: int, opening: datetime = OPENING) -> None:
    """Make the database anew, with so many orders and a third as many customers, or 60.

    `opening`: when the orders begin, a local time of the shop. Raises `FileExistsError` for a file that is no such
    shop: nothing of yours is written over.
    """
    if path.exists() and not _is_shop(path):
        raise FileExistsError(f"{path} exists, and is no shop that was made here; name another file.")
    path.unlink(missing_ok=True)
    random = Random(2026)
    customers = [_customer(random, number, opening) for number in range(1, max(orders // 3, 60) + 1)]
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        database.executescript(SCHEMA)
        database.executemany("INSERT INTO customers VALUES (?, ?, ?, ?, ?)", customers)
        database.executemany(
            "INSERT INTO orders VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [_order(random, number, len(customers), opening) for number in range(1, orders + 1)],
        )


def opening_until_now(orders: int) -> datetime:
    """When so many orders have to begin for the last one to be a minute old."""
    return datetime.now(SHOP_ZONE).replace(tzinfo=None) - orders * BETWEEN_ORDERS - timedelta(minutes=1)


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


def _is_shop(path: Path) -> bool:
    """By the application's id in the header of an SQLite file; an empty file is anybody's."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        header = file.read(72)
    return not header or header[68:] == APPLICATION_ID.to_bytes(4, "big")


def _customer(random: Random, number: int, opening: datetime) -> tuple[Any, ...]:
    email = None if number % 60 == 7 else f"{random.choice(NAMES)}.{number}@example.com"
    filled_in_form = number % 30 != 3
    signed_up = opening - timedelta(minutes=random.randrange(500_000))
    return number, email, random.choice(COUNTRIES), signed_up.isoformat(" "), int(filled_in_form)


def _order(random: Random, number: int, customers: int, opening: datetime) -> tuple[Any, ...]:
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
    placed_at = opening + number * BETWEEN_ORDERS + timedelta(milliseconds=random.randrange(1000))
    return number, customer, status, placed_at.isoformat(" "), total, random.choice(CURRENCIES), discount, note
