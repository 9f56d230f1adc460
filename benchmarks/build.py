"""Compiles the stub, the C limit and the Go peer, once for each state of their source."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

__all__ = ["FOLDER", "Missing", "program"]

SOURCES = Path(__file__).parent
FOLDER = SOURCES / "build"
LIBRARIES = {"limit_sql.c": ["-l:libsqlite3.so.0"]}
COMPILERS = {".c": ("gcc", ["-O2", "-std=c11", "-Wall", "-Wextra", "-o"]), ".go": ("go", ["build", "-o"])}


class Missing(Exception):
    """Something this machine lacks; the message says what, and what is left out for it."""


def program(source: str) -> Path:
    """The program that a source file compiles to.

    :raises Missing: there is no compiler for it.
    """
    path = SOURCES / source
    compiler, options = COMPILERS[path.suffix]
    found = shutil.which(compiler)
    if found is None:
        raise Missing(f"{compiler} is not installed, which {source} is compiled with")
    content = b"".join(file.read_bytes() for file in (path, SOURCES / "exchange.h"))
    digest = hashlib.sha256(content).hexdigest()[:12]
    made = FOLDER / f"{path.stem}-{digest}"
    if not made.exists():
        FOLDER.mkdir(exist_ok=True)
        environment = {**os.environ, "GOCACHE": str(FOLDER / "go-cache"), "GO111MODULE": "off", "CGO_ENABLED": "0"}
        command = [found, *options, str(made), str(path), *LIBRARIES.get(source, [])]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Missing(f"{source} does not compile here: {(done.stderr.strip().splitlines() or ['?'])[-1]}")
    return made
