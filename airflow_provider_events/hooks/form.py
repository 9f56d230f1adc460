"""The connection form of a vendor, for the provider info and for Airflow 2.11 to 3.1."""

from __future__ import annotations

from typing import Any, TypeAlias

from airflow_provider_events.vendors.base import ExtraField, Vendor

__all__ = [
    "conn_fields",
    "connection_type",
    "field_behaviour",
    "get_connection_form_widgets",
    "get_ui_field_behaviour",
]

HookClass: TypeAlias = type[Any]  # of `EventsHook`, which itself needs this module

_STANDARD = ("host", "schema", "login", "password", "port")


def connection_type(hook: HookClass) -> dict[str, Any]:
    """The entry of a hook among the `connection-types` of its package's provider info."""
    vendor = hook.vendor_class
    return {
        "connection-type": vendor.conn_type,
        "hook-class-name": f"{hook.__module__}.{hook.__name__}",
        "hook-name": vendor.label,
        "ui-field-behaviour": field_behaviour(vendor),
        "conn-fields": conn_fields(vendor),
    }


def field_behaviour(vendor: type[Vendor]) -> dict[str, Any]:
    """Labels and placeholders of the standard fields; those without a use are hidden."""
    used = {standard.name: standard for standard in vendor.all_standard_fields()}
    return {
        "hidden-fields": [name for name in _STANDARD if name not in used],
        "relabeling": {name: f"{field.label} *" if field.required else field.label for name, field in used.items()},
        "placeholders": {name: field.placeholder for name, field in used.items() if field.placeholder},
    }


def get_ui_field_behaviour(cls: HookClass) -> dict[str, Any]:
    """A hook's class method for Airflow 2.11 to 3.1: the same, and there the raw extra can be hidden as well."""
    behaviour = field_behaviour(cls.vendor_class)
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


def get_connection_form_widgets(cls: HookClass) -> dict[str, Any]:
    """A hook's class method for Airflow 2.11 to 3.1: the extra fields as wtforms fields, of classes that it takes."""
    from flask_appbuilder.fieldwidgets import BS3TextFieldWidget
    from wtforms import BooleanField, IntegerField, StringField
    from wtforms.validators import Optional, any_of

    widgets: dict[str, Any] = {}
    for extra in cls.vendor_class.all_extra_fields():
        text = {
            "label": f"{extra.label} *" if extra.required else extra.label,
            "description": " ".join([extra.description, *([f"({', '.join(extra.choices)})"] if extra.choices else [])]),
        }
        if extra.type == "boolean":
            widgets[extra.name] = BooleanField(**text, default=extra.default)
            continue
        checks = [Optional(), any_of(extra.choices) if extra.choices else _readable(extra)]
        if extra.type == "integer":
            field, default = IntegerField, extra.default
        else:
            field, default = StringField, None if extra.default is None else str(extra.default)
        widgets[extra.name] = field(**text, default=default, validators=checks, widget=BS3TextFieldWidget())
    return widgets


def _readable(extra: ExtraField) -> Any:
    """A validator of wtforms: what the form saves has to be what a hook reads."""

    def check(form: Any, field: Any) -> None:
        from wtforms.validators import ValidationError

        try:
            extra.read(field.data)
        except ValueError as error:
            raise ValidationError(str(error)) from None

    return check
