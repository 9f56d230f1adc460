"""Writes the reference tables of `docs/vendors/` from the vendors' classes.

    python docs/generate_vendor_reference.py            bring the pages up to date
    python docs/generate_vendor_reference.py --check    only say whether they are

A page holds each table between two comments; everything else in it is written by hand.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from airflow_provider_events.vendors.base import ConnectionValues, ExtraField, StandardField, Vendor, registry

PAGES = Path(__file__).parent / "vendors"
BLOCK = re.compile(r"(<!-- generated: (?P<name>[a-z ]+) -->\n).*?(<!-- end of generated -->)", re.DOTALL)


def main(arguments: list[str]) -> int:
    """Write the pages, or compare them; 1 if `--check` finds an outdated one."""
    outdated = [page for page in map(page_of, registry().values()) if page.read_text() != updated(page)]
    for page in outdated:
        if "--check" in arguments:
            print(f"{page.name} is outdated: python docs/generate_vendor_reference.py")
        else:
            page.write_text(updated(page))
    return 1 if outdated and "--check" in arguments else 0


def page_of(vendor: type[Vendor]) -> Path:
    """The page of a vendor."""
    return PAGES / f"{vendor.conn_type}.md"


def updated(page: Path) -> str:
    """The text of a page with its tables written anew."""
    tables = tables_of(registry()[page.stem])
    return BLOCK.sub(lambda block: f"{block[1]}{tables[block['name']]}{block[3]}", page.read_text())


def tables_of(vendor: type[Vendor]) -> dict[str, str]:
    """The tables of a vendor by name."""
    return {"at a glance": at_a_glance(vendor), "connection fields": connection_fields(vendor)}


def at_a_glance(vendor: type[Vendor]) -> str:
    """What a reader looks for first."""
    facts = {
        "Connection type": f"`{vendor.conn_type}`; default connection `{vendor.conn_type}_default`",
        "Identity": vendor.identity_keys,
        "Time of an event": "sent" if vendor.timestamp_sent else "not taken: events count as of their arrival",
        "Events per request": f"{vendor.max_batch_size}"
        if vendor.max_batch_size == 1
        else f"1 to {vendor.max_batch_size}",
        "Requests in flight": f"{vendor.max_in_flight} by default",
        "Published quota": quota(vendor),
        "Duplicates dropped": vendor.deduplication,
        "Vendor's documentation": f"<{vendor.docs_url}>",
    }
    return table(["", ""], [[f"**{name}**", fact] for name, fact in facts.items()])


def quota(vendor: type[Vendor]) -> str:
    """Published requests per minute, for single events and for full requests."""
    required = {field.name: "example" for field in vendor.extra_fields if field.required}
    configured = vendor(ConnectionValues("example", password="example", extra=required))
    single, full = configured.quota(1), configured.quota(vendor.max_batch_size)
    if single is None:
        return "none"
    if single == full:
        return f"{single:,.0f} requests a minute"
    return f"{single:,.0f} requests a minute with one event each, {full:,.0f} with more"


def connection_fields(vendor: type[Vendor]) -> str:
    """Every field of the connection."""
    rows = [standard_row(vendor, field) for field in vendor.all_standard_fields()]
    rows += [extra_row(field) for field in vendor.all_extra_fields()]
    return table(["Field of the form", "Airflow's name", "Required", "Default", "Meaning"], rows)


def standard_row(vendor: type[Vendor], field: StandardField) -> list[str]:
    """A field that every Airflow connection has."""
    default = {"host": f"`{vendor.default_host}`", "port": "that of the URL"}.get(field.name, "")
    hint = field.description or ("" if field.placeholder == vendor.default_host else field.placeholder)
    return [field.label, f"`{field.name}`", yes_or_no(field.required), default, hint]


def extra_row(field: ExtraField) -> list[str]:
    """A key of the extra."""
    default = "" if field.default is None else f"`{field.default}`"
    choices = f" (one of {', '.join(f'`{choice}`' for choice in field.choices)})" if field.choices else ""
    return [field.label, f"extra `{field.name}`", yes_or_no(field.required), default, field.description + choices]


def yes_or_no(required: bool) -> str:
    """For the column Required."""
    return "yes" if required else "no"


def table(head: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n" for cells in lines)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
