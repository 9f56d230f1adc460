"""Which servers are trusted, and why one is not."""

from __future__ import annotations

import ssl
from functools import lru_cache
from pathlib import Path

__all__ = ["not_trusted", "tls_context"]

# By OpenSSL's X509_V_ERR_…; all others say in some way that nobody known has signed it.
_CERTIFICATE_FAULTS = {
    9: "is not valid yet: is the clock of this machine right?",
    10: "has expired",
    23: "was revoked",
    62: "is for another name",
    64: "is for another name",
}


def not_trusted(whose: str, error: ssl.SSLCertVerificationError) -> str:
    """What is wrong with a certificate."""
    fault = _CERTIFICATE_FAULTS.get(error.verify_code, "is not trusted")
    return f"the TLS certificate of {whose} {fault}"


def tls_context(verify: bool | str) -> ssl.SSLContext:
    """What `verify` means; a CA bundle (or a folder of CAs) is read anew each time, as it may have been exchanged.

    :raises OSError: there are no CAs at this path.
    """
    if not isinstance(verify, str):
        return _usual_context(verify)
    if Path(verify).is_dir():
        return ssl.create_default_context(capath=verify)
    return ssl.create_default_context(cafile=verify)


@lru_cache
def _usual_context(verify: bool) -> ssl.SSLContext:
    """Made once: to load the system's CAs takes tens of milliseconds."""
    context = ssl.create_default_context()
    if not _has_authorities(context):
        import certifi

        context.load_verify_locations(certifi.where())
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _has_authorities(context: ssl.SSLContext) -> bool:
    """Whether the system has any; those in a folder are loaded only when they are needed."""
    folder = ssl.get_default_verify_paths().capath
    return bool(context.cert_store_stats()["x509_ca"] or (folder and any(Path(folder).iterdir())))
