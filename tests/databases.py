"""Which database does a URL name?

`postgres://user:password@host:port/name`, `mysql://...`, `mariadb://...`, `sqlite:////absolute/path`, `sqlite:///relative/path`.
A host that is a directory or a file is a socket, percent-encoded: `mysql://root@%2Frun%2Fmysqld%2Fmysqld.sock/name`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, unquote, urlsplit

SQLITE = "django.db.backends.sqlite3"
POSTGRESQL = "django.db.backends.postgresql"
MYSQL = "django.db.backends.mysql"

ENGINES = {"sqlite": SQLITE, "postgres": POSTGRESQL, "postgresql": POSTGRESQL, "mysql": MYSQL, "mariadb": MYSQL}
SCHEMES = {SQLITE: "sqlite", POSTGRESQL: "postgres", MYSQL: "mysql"}

OPTIONS: Mapping[str, Mapping[str, Any]] = {
    # Several processes read and write these files. Everything else stays as Django sets it, since users keep it so.
    SQLITE: {"init_command": "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL", "timeout": 20},
    POSTGRESQL: {},
    MYSQL: {"charset": "utf8mb4"},
}


def parse(url: str, *, name: str = "") -> dict[str, Any]:
    """Read one entry of Django's DATABASES from a URL; `name` replaces the database that the URL names.

    The test database has the same name as the database itself, so that processes started by a test,
    which know nothing of test runners, find the one that the test prepared.
    """
    parts = urlsplit(url)
    if parts.scheme not in ENGINES:
        known = ", ".join(sorted(ENGINES))
        raise ValueError(f"The database URL starts with {parts.scheme!r}; it must start with one of: {known}.")
    engine = ENGINES[parts.scheme]
    name = name or unquote(parts.path.removeprefix("/"))
    entry: dict[str, Any] = {
        "ENGINE": engine,
        "NAME": name,
        "OPTIONS": dict(OPTIONS[engine]),
        # A run may ask for one database alone; as Django has it, each would wait for the default one.
        "TEST": {"NAME": name, "DEPENDENCIES": []},
    }
    if engine != SQLITE:
        entry |= {
            "USER": unquote(parts.username or ""),
            "PASSWORD": unquote(parts.password or ""),
            # Not parts.hostname, which is in lower case: a socket's path is not.
            "HOST": unquote(parts.netloc.rpartition("@")[2].removesuffix(f":{parts.port}")),
            "PORT": str(parts.port or ""),
        }
    if engine == MYSQL:
        entry["TEST"]["CHARSET"] = "utf8mb4"
    return entry


def url(entry: Mapping[str, Any]) -> str:
    """Write an entry of Django's DATABASES as a URL: the inverse of `parse`."""
    scheme, name = SCHEMES[entry["ENGINE"]], quote(str(entry["NAME"]), safe="/")
    if scheme == "sqlite":
        return f"sqlite:///{name}"
    password = f":{quote(entry['PASSWORD'], safe='')}" if entry["PASSWORD"] else ""
    port = f":{entry['PORT']}" if entry["PORT"] else ""
    return f"{scheme}://{quote(entry['USER'], safe='')}{password}@{quote(entry['HOST'], safe='')}{port}/{name}"
