"""How does a test have an SQS?"""

from __future__ import annotations

import getpass
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boto3

from tools.servers import PrivateProcess, greets, private

KEY, SECRET, REGION = "key", "CANARY", "eu-central-1"


class PrivateSqs(PrivateProcess):
    """Speaks the protocol of Amazon's, and keeps what it has in memory."""

    account = getpass.getuser()

    @property
    def url(self) -> str:
        return f"sqs://{KEY}:{SECRET}@127.0.0.1:{self.port}"

    def create(self) -> None:
        """Lay down nothing: it has no files."""

    def command(self) -> tuple[str, ...]:
        return (sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port))

    def answers(self) -> bool:
        return greets(self.port, b"GET /moto-api/data.json HTTP/1.0\r\n\r\n")


@contextmanager
def private_sqs() -> Iterator[PrivateSqs]:
    with private(PrivateSqs) as server:
        yield server


def entry(url: str, **transport: Any) -> dict[str, Any]:
    """Return what stands for it in BROKERS."""
    own = {"is_secure": False, "region": REGION}
    return {"LOCATION": url, "OPTIONS": {"TRANSPORT": {**own, **transport}}}


def direct(server: PrivateSqs) -> Any:
    """Return a client that looks behind the broker's back."""
    return boto3.client(
        "sqs",
        region_name=REGION,
        aws_access_key_id=KEY,
        aws_secret_access_key=SECRET,
        endpoint_url=f"http://127.0.0.1:{server.port}",
    )
