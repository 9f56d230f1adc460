"""Make a virtual environment from pinned requirements, with nothing but Python's standard library.

    python3 scripts/bootstrap.py .venv requirements/airflow-3.3.txt --with-mysql

A second run is instant: the environment is made again only when the pins, Python or its place have changed.

Debian's python3 has no ensurepip unless python3-venv is installed too. So the environment is made without pip, and
one pinned pip wheel is fetched from the package index that pip itself would use: PIP_INDEX_URL, pip's configuration
files, or PyPI; proxies, netrc and PIP_CERT count as well. The wheel is accepted by its SHA-256 alone, hence a machine
without CA certificates can do it too. From there on pip does the work, with all of the user's own configuration.
"""

from __future__ import annotations

import argparse
import base64
import configparser
import hashlib
import html
import importlib.util
import netrc
import os
import re
import shutil
import ssl
import subprocess
import sys
import sysconfig
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
import venv
from collections.abc import Iterator
from pathlib import Path

PIP_VERSION = "26.3"
PIP_WHEEL = f"pip-{PIP_VERSION}-py3-none-any.whl"
PIP_SHA256 = "f3b60b20ffaadd4415ed7957212a38ac63fa4c5fa375bd0f4a797777940fad13"
DEFAULT_INDEX = "https://pypi.org/simple"
TIMEOUT_SECONDS = 60

ROOT = Path(__file__).resolve().parent.parent
BUILD_CONSTRAINTS = ROOT / "requirements" / "build.txt"
MYSQL = ROOT / "requirements" / "mysql.txt"

# Airflow 2.11 needs it, and it is published as source only. It is pure Python: no compiler is involved.
SOURCE_ONLY = "python-nvd3"


def main() -> None:
    """Make, or bring up to date, the environment named on the command line."""
    parser = argparse.ArgumentParser(description="Make a virtual environment from pinned requirements.")
    parser.add_argument("directory", type=Path, help="where the environment is made; an outdated one is replaced")
    parser.add_argument("requirements", type=Path, help="the file in which every package is pinned")
    parser.add_argument("--with-mysql", action="store_true", help="add the MySQL provider, where it can be compiled")
    arguments = parser.parse_args()
    directory, requirements = arguments.directory, arguments.requirements
    python = directory / "bin" / "python"

    pins = Stamp(directory / ".made-pins", [*sys.version_info, directory.resolve()], [requirements, BUILD_CONSTRAINTS])
    if not pins.holds():
        started = time.monotonic()
        print(f"{directory}: installing {requirements}, a minute or two the first time", flush=True)
        venv.create(directory, clear=True, symlinks=True, with_pip=False)
        install_pip(python)
        install(python, requirements, "--only-binary", ":all:", "--no-binary", SOURCE_ONLY)
        pins.make()
        print(f"{directory}: ready after {time.monotonic() - started:.0f} s", flush=True)

    project = Stamp(directory / ".made-project", [], [ROOT / "pyproject.toml"])
    if not project.holds():
        pip(python, "install", "-qq", "--no-deps", "--no-build-isolation", "--editable", str(ROOT))
        project.make()

    mysql = Stamp(directory / ".made-mysql", [], [MYSQL, BUILD_CONSTRAINTS])
    if arguments.with_mysql and not mysql.holds():
        missing = missing_for_mysql()
        if missing:
            print(f"{directory}: no MySQL provider, so no tests against MariaDB; missing: {missing}", flush=True)
        else:
            install(python, MYSQL)
            mysql.make()


class Stamp:
    """A file that says from what something was made, so that it is made again only when that has changed."""

    def __init__(self, path: Path, facts: list[object], files: list[Path]) -> None:
        content = [repr(facts).encode(), *(file.read_bytes() for file in files)]
        self.path = path
        self.text = hashlib.sha256(b"\0".join(content)).hexdigest() + "\n"

    def holds(self) -> bool:
        """Nothing has changed since :meth:`make`."""
        return self.path.is_file() and self.path.read_text() == self.text

    def make(self) -> None:
        """Call this when all is done."""
        self.path.write_text(self.text)


def install(python: Path, requirements: Path, *options: str) -> None:
    """Install exactly what the file names."""
    pip(
        python, "install", "-qq", "--no-deps", *options,
        "--build-constraint", str(BUILD_CONSTRAINTS), "--requirement", str(requirements),
    )  # fmt: skip


def missing_for_mysql() -> str:
    """Name what a build of mysqlclient, which has no Linux wheel, would need and this machine lacks."""
    missing = []
    if not (shutil.which("cc") or shutil.which("gcc")):
        missing.append("a C compiler")
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        missing.append("Python's headers (python3-dev)")
    config = shutil.which("pkg-config")
    names = ("mysqlclient", "mariadb", "libmariadb")
    if config is None:
        missing.append("pkg-config")
    elif not any(subprocess.run([config, "--exists", name], check=False).returncode == 0 for name in names):
        missing.append("MariaDB's headers (libmariadb-dev)")
    return ", ".join(missing)


def install_pip(python: Path) -> None:
    """Give the environment its pip: through ensurepip where there is one, otherwise from the index."""
    if importlib.util.find_spec("ensurepip") is not None:
        run([str(python), "-m", "ensurepip", "--default-pip"], stdout=subprocess.DEVNULL)
        pip(python, "install", "-qq", f"pip=={PIP_VERSION}")
        return
    with tempfile.TemporaryDirectory() as directory:
        wheel = Path(directory) / PIP_WHEEL
        wheel.write_bytes(download_pip())
        # A wheel is a zip file: pip can run from its own and install it.
        run([str(python), str(wheel / "pip"), "install", "-qq", "--no-index", "--no-deps", str(wheel)])


def pip(python: Path, *arguments: str) -> None:
    """Run the environment's pip."""
    run([str(python), "-m", "pip", *arguments])


def run(command: list[str], stdout: int | None = None) -> None:
    """Run a command, or end the script with its exit status: its own message says enough."""
    # `user = true` in somebody's pip configuration is refused inside a virtual environment.
    environment = {**os.environ, "PIP_USER": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    status = subprocess.run(command, env=environment, stdout=stdout, check=False).returncode
    if status:
        sys.exit(status)


def download_pip() -> bytes:
    """Fetch the pinned pip wheel from the first index that has it."""
    settings = pip_settings()
    certificates = settings.get("cert") or os.environ.get("REQUESTS_CA_BUNDLE")
    problems = []
    for index in index_urls(settings):
        try:
            page_url, page = fetch(index.rstrip("/") + "/pip/", certificates)
            content = fetch(wheel_url(page_url, page.decode()), certificates)[1]
        except (OSError, LookupError, ValueError) as error:
            problems.append(f"  {without_password(index)}: {error}")
            continue
        digest = hashlib.sha256(content).hexdigest()
        if digest == PIP_SHA256:
            return content
        problems.append(f"  {without_password(index)}: {PIP_WHEEL} has SHA-256 {digest}, expected {PIP_SHA256}")
    sys.exit(f"Could not get {PIP_WHEEL} (or install python3-venv, which has a pip):\n" + "\n".join(problems))


def pip_settings() -> dict[str, str]:
    """Read pip's own settings: the site's file, the user's, PIP_CONFIG_FILE, then PIP_* variables, later ones win."""
    home = Path.home()
    files = [Path(part, "pip", "pip.conf") for part in os.environ.get("XDG_CONFIG_DIRS", "/etc/xdg").split(":")]
    files += [Path("/etc/pip.conf"), home / ".pip" / "pip.conf"]
    files += [Path(os.environ.get("XDG_CONFIG_HOME", home / ".config"), "pip", "pip.conf")]
    files += [Path(os.environ["PIP_CONFIG_FILE"])] if "PIP_CONFIG_FILE" in os.environ else []
    if os.environ.get("PIP_CONFIG_FILE") == os.devnull:  # pip takes this to mean: no files at all
        files = []
    parser = configparser.RawConfigParser()
    parser.read(files)
    settings = {}
    for section in ("global", "install"):
        if parser.has_section(section):
            settings.update({name.replace("_", "-"): value for name, value in parser.items(section)})
    for name in ("index-url", "extra-index-url", "cert"):
        value = os.environ.get("PIP_" + name.upper().replace("-", "_"))
        if value:
            settings[name] = value
    return settings


def index_urls(settings: dict[str, str]) -> Iterator[str]:
    """Name the indexes in the order in which pip would prefer them."""
    yield settings.get("index-url", DEFAULT_INDEX)
    yield from settings.get("extra-index-url", "").split()


def wheel_url(page_url: str, page: str) -> str:
    """Find the wheel's link on the index's page for pip."""
    for link in re.findall(r"""href\s*=\s*["']([^"']+)["']""", page, re.IGNORECASE):
        url = urllib.parse.urljoin(page_url, html.unescape(link))
        if urllib.parse.urlsplit(url).path.endswith("/" + PIP_WHEEL):
            return url
    raise LookupError(f"no {PIP_WHEEL} listed")


def fetch(url: str, certificates: str | None) -> tuple[str, bytes]:
    """Read a URL, and say from where it was answered. urllib honours http_proxy, https_proxy and no_proxy."""
    parts = urllib.parse.urlsplit(url)
    request = urllib.request.Request(parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl())
    user, password = credentials(parts)
    if user:
        token = base64.b64encode(f"{user}:{password}".encode()).decode()
        # Not repeated to the host that a redirect may lead to.
        request.add_unredirected_header("Authorization", f"Basic {token}")
    context = ssl.create_default_context(cafile=certificates)
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS, context=context) as response:
            return rejoin(response.url, parts), response.read()
    except urllib.error.URLError as error:
        if user or not isinstance(error.reason, ssl.SSLCertVerificationError):
            raise
    # Without CA certificates nobody vouches for the server; the hash vouches for the wheel. No password is sent.
    context = ssl._create_unverified_context()
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS, context=context) as response:
        return response.url, response.read()


def credentials(parts: urllib.parse.SplitResult) -> tuple[str, str]:
    """User and password from the URL, or else from ~/.netrc."""
    if parts.username:
        return urllib.parse.unquote(parts.username), urllib.parse.unquote(parts.password or "")
    try:
        entry = netrc.netrc().authenticators(parts.hostname or "")
    except (OSError, netrc.NetrcParseError):
        entry = None
    return (entry[0], entry[2] or "") if entry else ("", "")


def rejoin(answered: str, asked: urllib.parse.SplitResult) -> str:
    """Put the user and password back, if the same host answered, for the links relative to that page."""
    parts = urllib.parse.urlsplit(answered)
    same_host = asked.netloc.rpartition("@")[2] == parts.netloc
    return parts._replace(netloc=asked.netloc).geturl() if same_host else answered


def without_password(url: str) -> str:
    """The URL as it may be printed."""
    parts = urllib.parse.urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


if __name__ == "__main__":
    main()
