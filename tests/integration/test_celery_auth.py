"""Do sites that sign with certificates, as Celery's `auth` serializer does, trust each other and nobody else?"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from django.test import override_settings

from django_tasks import send_task, states
from django_tasks.connections import brokers
from django_tasks.serializers.signed import pack, unpack
from tests.certificates import Owner, owner
from tests.integration.celery_sides import ROOT, CeleryWorker, ended, site_on, twice, value
from tests.rabbit import Rabbit

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder where each has its key, and one with the certificates that all trust."""
    folder = tmp_path_factory.mktemp("keys")
    owner(folder, "celery", trusted=folder / "trusted")
    return folder


@pytest.fixture(scope="module")
def ours(folder: Path) -> Owner:
    return owner(folder, "ours", trusted=folder / "trusted")


@pytest.fixture(scope="module")
def rabbit() -> Iterator[Rabbit]:
    # As Celery declares its queues.
    rabbit = Rabbit(PRIORITIES=False)
    rabbit.uses("theirs", "ours")
    yield rabbit
    rabbit.close()


@pytest.fixture(autouse=True)
def site(rabbit: Rabbit, ours: Owner, folder: Path) -> Iterator[dict[str, Any]]:
    with site_on(rabbit, **ours.settings(folder / "trusted")) as keys:
        yield keys


@pytest.fixture(scope="module")
def worker(
    rabbit: Rabbit, folder: Path, ours: Owner, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[CeleryWorker]:
    worker = CeleryWorker(rabbit, tmp_path_factory.mktemp("celery"), INTEROP_KEYS=str(folder))
    yield worker
    worker.close()


def calls(rabbit: Rabbit, folder: Path, number: int) -> str:
    """Have a client of Celery's, a process of its own, call our task; return the id."""
    command = [sys.executable, "-m", "celery", "-A", "tests.integration.celery_app", "call", "--serializer", "auth"]
    done = subprocess.run(
        [*command, "--queue", rabbit.name("ours"), "-a", json.dumps([number]), twice.name],
        cwd=ROOT,
        env={**os.environ, "INTEROP_URL": rabbit.url, "INTEROP_KEYS": str(folder)},
        check=True,
        capture_output=True,
        text=True,
    )
    return done.stdout.split()[-1]


def test_our_worker_runs_what_a_client_of_celerys_has_signed(rabbit: Rabbit, folder: Path):
    assert value(ended(calls(rabbit, folder, 21))) == 42


def test_our_worker_refuses_a_client_whose_certificate_it_does_not_know(
    rabbit: Rabbit, folder: Path, site: dict[str, Any], tmp_path: Path
):
    owner(tmp_path, "other", trusted=tmp_path / "trusted")
    with override_settings(DJANGO_TASKS={**site, "SECURITY_CERT_STORE": tmp_path / "trusted"}):
        result = ended(calls(rabbit, folder, 21))
    assert result.state == states.FAILURE
    assert result.failure is not None
    assert result.failure.type == "SignatureError"
    assert result.failure.message.startswith("its certificate is not known here: 'Tests of tasks celery ")


@pytest.mark.parametrize("compression", ["none", "zlib"])
def test_a_celery_worker_runs_what_we_have_signed(worker: CeleryWorker, compression: str):
    sent = send_task("interop.note", ["x" * 500], {"n": 1}, queue="theirs", compression=compression)
    [seen] = worker.seen(sent.id)
    assert seen["args"] == [repr("x" * 500)]
    assert seen["kwargs"] == {"n": "1"}


def test_a_celery_worker_refuses_what_was_changed_on_its_way(worker: CeleryWorker):
    [message] = twice.s(1).set(queue="theirs").plan().messages
    signed = unpack(message.body)
    changed = replace(message, task="interop.note", body=pack(replace(signed, body=b"[[2], {}, {}]")))
    brokers["default"].publish([changed])
    worker.said("Can't decode message body")
    after = send_task("interop.note", queue="theirs")
    worker.seen(after.id)
    assert changed.id not in worker.file.read_text()
