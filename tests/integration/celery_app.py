"""Which tasks does the Celery worker have that our client calls? It writes what it sees to a file, a line each."""

from __future__ import annotations

import json
import os
from typing import Any

from celery import Celery

app = Celery(
    "interop",
    broker=os.environ.get("INTEROP_URL"),
    backend=os.environ.get("INTEROP_RESULTS"),
    set_as_current=False,
)
app.conf.update(
    task_ignore_result="INTEROP_RESULTS" not in os.environ,
    result_backend_transport_options={"global_keyprefix": os.environ.get("INTEROP_PREFIX", "")},
    broker_connection_retry_on_startup=True,
    worker_hijack_root_logger=False,
    task_default_queue=os.environ.get("INTEROP_QUEUE", "celery"),
)
if "INTEROP_KEYS" in os.environ:
    folder = os.environ["INTEROP_KEYS"]
    app.conf.update(
        task_serializer="auth",
        accept_content=["auth"],
        security_key=f"{folder}/celery.key",
        security_certificate=f"{folder}/celery.pem",
        security_cert_store=f"{folder}/trusted/*.pem",
    )
    app.setup_security()


def tell(request: Any, **more: Any) -> None:
    line = {
        "id": request.id,
        "root_id": request.root_id,
        "retries": request.retries,
        "timelimit": request.timelimit,
        "eta": request.eta,
        "expires": request.expires,
        "argsrepr": request.argsrepr,
        "origin": request.origin,
        "priority": (request.delivery_info or {}).get("priority"),
        "tenant": (request.headers or {}).get("tenant"),
        "stamps": request.stamps,
        **more,
    }
    with open(os.environ["INTEROP_FILE"], "a") as file:  # noqa: PTH123  # one write for each line
        file.write(json.dumps(line, default=str) + "\n")


@app.task(bind=True, name="interop.note")
def note(self: Any, *args: Any, **kwargs: Any) -> None:
    tell(self.request, args=[repr(arg) for arg in args], kwargs={key: repr(value) for key, value in kwargs.items()})


@app.task(bind=True, name="interop.retry_once", max_retries=3)
def retry_once(self: Any) -> None:
    tell(self.request)
    if self.request.retries < 1:
        raise self.retry(countdown=1)


@app.task(name="interop.half")
def half(number: int) -> float:
    if number % 2:
        raise ValueError(f"{number} is odd")
    return number / 2
