"""Access rules: token, Host and Origin, sizes of headers."""

import hashlib
import hmac
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

from vitrail.errors import VitrailError
from vitrail.serving.limits import Limits
from vitrail.serving.refusal import Refusal

SHORTEST_TOKEN = 16
OPEN_PATHS = frozenset(["/", "/docs", "/openapi.json", "/livez", "/readyz", "/favicon.ico"])
"""Paths that need no token: they show nothing of the models. The files below `OPEN_FOLDER` are static."""
OPEN_FOLDER = "/static/"
SESSION_FOLDER, SESSION_COOKIE = "/runs/", "vitrail_session"
_MOST_HEADERS = 100


@dataclass(frozen=True)
class AccessRules:
    """Rules of one server.

    Args:
        token: token of every route that is not open; None if the server is on a loopback address.
        hosts: values of the Host header that are accepted, without port; None accepts all.
        limits: limits of the headers.
        sessions: cookie values that may read below `SESSION_FOLDER`.
    """

    token: str | None
    hosts: frozenset[str] | None
    limits: Limits
    sessions: set[str] = field(default_factory=set)

    def check(self, scope: Mapping[str, Any]) -> None:
        """Check a request before anything of it is used.

        Raises:
            Refusal: 431, 414, 421, 403 or 401.
        """
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        self._check_sizes(scope, headers)
        values = dict(reversed(headers))  # the first of a name counts
        if self.hosts is not None and _host(values.get(b"host", b"")) not in self.hosts:
            raise Refusal(421, "host", "This server does not answer under that host name.")
        if scope["method"] not in ("GET", "HEAD", "OPTIONS") and _is_foreign(values):
            raise Refusal(403, "origin", "Requests from pages of other sites are refused.")
        if self.token is not None and not is_open(scope["path"]) and not self._is_allowed(scope, values):
            raise Refusal(401, "token", "Send the header Authorization: Bearer TOKEN, with the token of the server.")

    def _check_sizes(self, scope: Any, headers: list[tuple[bytes, bytes]]) -> None:
        sizes = [len(name) + len(value) for name, value in headers]
        if max(sizes, default=0) > self.limits.header or sum(sizes) > self.limits.headers or len(sizes) > _MOST_HEADERS:
            raise Refusal(431, "headers", f"A header may have {self.limits.header:,} bytes.")
        if len(scope.get("raw_path") or b"") + 1 + len(scope["query_string"]) > self.limits.target:
            raise Refusal(414, "target", f"Path and query may have {self.limits.target:,} bytes.")

    def _is_allowed(self, scope: Any, values: dict[bytes, bytes]) -> bool:
        kind, _, given = values.get(b"authorization", b"").partition(b" ")
        if kind.lower() == b"bearer" and same_secret(given.strip(), (self.token or "").encode()):
            return True
        reads = scope["method"] in ("GET", "HEAD") and scope["path"].startswith(SESSION_FOLDER)
        cookie = _cookie(values.get(b"cookie", b""), SESSION_COOKIE.encode())
        return reads and any(same_secret(cookie, each.encode()) for each in self.sessions)


def is_open(path: str) -> bool:
    """Return whether a path needs no token.

    Example:
        >>> is_open("/livez"), is_open("/static/page.js"), is_open("/static/../metrics"), is_open("/metrics")
        (True, True, False, False)
    """
    return path in OPEN_PATHS or (path.startswith(OPEN_FOLDER) and "/" not in path.removeprefix(OPEN_FOLDER))


def same_secret(given: bytes, secret: bytes) -> bool:
    """Compare two secrets in a time that depends on neither, nor on their lengths.

    Example:
        >>> same_secret(b"token", b"token"), same_secret(b"", b"token")
        (True, False)
    """
    return hmac.compare_digest(hashlib.sha256(given).digest(), hashlib.sha256(secret).digest())


def access_rules(host: str, token: str | None, limits: Limits, sessions: set[str]) -> AccessRules:
    """Return the rules for a bind address.

    Raises:
        VitrailError: the address is not loopback and there is no token, or the token is short or not ASCII.

    Example:
        >>> sorted(access_rules("127.0.0.1", None, Limits(), set()).hosts)
        ['127.0.0.1', '::1', 'localhost']
        >>> access_rules("0.0.0.0", None, Limits(), set())
        Traceback (most recent call last):
        vitrail.errors.VitrailError: --host 0.0.0.0 is reachable from other machines, so it needs a token.
        Set VITRAIL_TOKEN (or --token) to at least 16 characters, or leave --host out.
    """
    if token is not None and (len(token) < SHORTEST_TOKEN or not token.isascii() or not token.isprintable()):
        raise VitrailError(f"The token needs at least {SHORTEST_TOKEN} characters of ASCII.")
    loopback = is_loopback(host)
    if not loopback and token is None:
        raise VitrailError(
            f"--host {host} is reachable from other machines, so it needs a token.\n"
            f"Set VITRAIL_TOKEN (or --token) to at least {SHORTEST_TOKEN} characters, or leave --host out."
        )
    hosts = frozenset(["localhost", "127.0.0.1", "::1", host.lower()]) if loopback else None
    return AccessRules(token, hosts, limits, sessions)


def is_loopback(host: str) -> bool:
    """Return whether an address is reachable from this machine only.

    Example:
        >>> is_loopback("127.0.0.1"), is_loopback("::1"), is_loopback("localhost"), is_loopback("0.0.0.0")
        (True, True, True, False)
    """
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _host(value: bytes) -> str:
    """Return the host of a Host header, without port and brackets."""
    text = value.decode("latin-1").lower()
    if text.startswith("["):
        return text[1:].partition("]")[0]
    name, _, port = text.partition(":")
    return name if not port or port.isdigit() else ""


def _is_foreign(values: dict[bytes, bytes]) -> bool:
    """Return whether a browser sends the request for a page of another origin."""
    if values.get(b"sec-fetch-site", b"same-origin") not in (b"same-origin", b"none"):
        return True
    origin = values.get(b"origin")
    return (
        origin is not None
        and urlsplit(origin.decode("latin-1")).netloc.lower() != values.get(b"host", b"").decode("latin-1").lower()
    )


def _cookie(header: bytes, name: bytes) -> bytes:
    pairs: Iterable[list[bytes]] = (part.strip().split(b"=", 1) for part in header.split(b";"))
    return next((pair[1] for pair in pairs if len(pair) == 2 and pair[0] == name), b"")
