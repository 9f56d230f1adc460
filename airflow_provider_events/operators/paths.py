"""Paths that templates give: who may trigger a DAG does not choose what its worker reads and writes."""

from __future__ import annotations

import os
import posixpath
from typing import Any

from airflow_provider_events._compat import conf
from airflow_provider_events.exceptions import ConfigurationError
from airflow_provider_events.operators.templated import is_templated

__all__ = ["GivenPath"]

OF_THE_TRIGGER = ("params", "conf")


class GivenPath:
    """An option that is a path, as the DAG's author gave it.

    A literal is the author's. What a template gives lies in one of the folders of Airflow's `[events] allowed_paths`,
    if there are any; a template of `params` or `dag_run.conf` is refused without them.

    :param given: the option's value before it is rendered.
    """

    def __init__(self, option: str, given: Any) -> None:
        self._option = option
        self._templated = is_templated(given)
        self._climbs = given.count("..") if isinstance(given, str) else 0
        self._of_the_trigger = isinstance(given, str) and self._templated and _of_the_trigger(given)

    def checked(self, path: str | None) -> str | None:
        """The path that was rendered.

        :raises ConfigurationError: it is not allowed.
        """
        if not path or not self._templated:
            return path
        if path.count("..") > self._climbs:
            raise ConfigurationError(f"{self._option}: what its template was given leads out of its folder by '..'")
        folders = [folder.strip() for folder in conf.get("events", "allowed_paths", fallback="").split(",")]
        folders = [folder for folder in folders if folder]
        if self._of_the_trigger and not folders:
            raise ConfigurationError(
                f"{self._option}: a template of params or dag_run.conf lets whoever triggers the DAG choose what the "
                "worker reads and writes; name the folders where it may, in Airflow's [events] allowed_paths"
            )
        if folders and not any(_within(path, folder) for folder in folders):
            raise ConfigurationError(
                f"{self._option}: what its template gave is in none of the folders of Airflow's [events] allowed_paths"
            )
        return path


def _of_the_trigger(template: str) -> bool:
    """Whether a template uses what comes with the trigger of a DAG run; `conf` alone is Airflow's configuration."""
    from jinja2 import Environment, TemplateError, nodes

    try:
        tree = Environment(autoescape=True).parse(template)
    except TemplateError:
        return True  # Airflow will say what is wrong with it
    return (
        any(name.name == "params" for name in tree.find_all(nodes.Name))
        or any(node.attr in OF_THE_TRIGGER for node in tree.find_all(nodes.Getattr))
        or any(node.value in OF_THE_TRIGGER for node in tree.find_all(nodes.Const))
    )


def _within(path: str, folder: str) -> bool:
    path, folder = path.removeprefix("file://"), folder.removeprefix("file://")
    if "://" in path or "://" in folder:
        (scheme, _, inner), (other, _, outer) = path.partition("://"), folder.partition("://")
        return scheme == other and _below(posixpath.normpath(inner), posixpath.normpath(outer))
    return _below(os.path.realpath(path), os.path.realpath(folder))


def _below(path: str, folder: str) -> bool:
    return path.startswith(f"{folder.rstrip('/')}/")
