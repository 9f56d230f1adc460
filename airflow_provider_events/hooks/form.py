"""The connection form of a vendor, for the provider info and for Airflow 2.11 to 3.1."""

from __future__ import annotations

from typing import Any

from airflow_provider_events.vendors.base import Vendor

__all__ = ["conn_fields", "field_behaviour", "form_widgets", "legacy_field_behaviour"]

_STANDARD = ("host", "schema", "login", "password", "port")


def field_behaviour(vendor: type[Vendor]) -> dict[str, Any]:
    """Labels and placeholders of the standard fields; those without a use are hidden."""
    used = {standard.name: standard for standard in vendor.standard_fields}
    return {
        "hidden-fields": [name for name in _STANDARD if name not in used],
        "relabeling": {name: standard.label for name, standard in used.items()},
        "placeholders": {name: standard.placeholder for name, standard in used.items() if standard.placeholder},
    }


def legacy_field_behaviour(vendor: type[Vendor]) -> dict[str, Any]:
    """The same in the spelling of the hook method; there the raw extra can be hidden as well."""
    behaviour = field_behaviour(vendor)
    return {
        "hidden_fields": [*behaviour["hidden-fields"], "extra"],
        "relabeling": behaviour["relabeling"],
        "placeholders": behaviour["placeholders"],
    }


def conn_fields(vendor: type[Vendor]) -> dict[str, Any]:
    """The extra fields as the provider info declares them."""
    return {
        extra.name: {"label": extra.label, "description": extra.description, "schema": extra.schema()}
        for extra in vendor.all_extra_fields()
    }


def form_widgets(vendor: type[Vendor]) -> dict[str, Any]:
    """The extra fields as wtforms fields."""
    from flask_appbuilder.fieldwidgets import BS3TextFieldWidget, Select2Widget
    from wtforms import BooleanField, FloatField, IntegerField, SelectField, StringField
    from wtforms.validators import NumberRange, Optional

    widgets: dict[str, Any] = {}
    for extra in vendor.all_extra_fields():
        common = {"label": extra.label, "description": extra.description, "default": extra.default}
        if extra.choices:
            widgets[extra.name] = SelectField(
                **common, choices=[(choice, choice) for choice in extra.choices], widget=Select2Widget()
            )
            continue
        if extra.type == "boolean":
            widgets[extra.name] = BooleanField(**common)
            continue
        field = {"string": StringField, "integer": IntegerField, "number": FloatField}[extra.type]
        validators = [Optional()] + ([NumberRange(min=extra.minimum)] if extra.minimum is not None else [])
        widgets[extra.name] = field(**common, validators=validators, widget=BS3TextFieldWidget())
    return widgets
