"""Is what is encrypted hidden from all but those with a key, and of no use anywhere else?"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any

import pytest

from django_tasks import AsyncResult, Task, chain, chord, group, states
from django_tasks.backends.memory import MemoryBroker
from django_tasks.cipher import Xaes
from django_tasks.connections import brokers, results
from django_tasks.display import value_tree
from django_tasks.encryption import ENCRYPTED, conceal, conceal_value, reveal, reveal_value
from django_tasks.exceptions import ConfigurationError, DecryptionError
from django_tasks.execution import Site, execute
from django_tasks.logs import _shown
from django_tasks.message import Delivery, Message
from django_tasks.protocol import dump_message
from django_tasks.results.celery_meta import dump_meta, load_meta
from django_tasks.results.memory import MemoryStore
from django_tasks.settlement import result_of
from django_tasks.signing import sign, verify
from tests.calls import declare, next_of, outcome_of, sent
from tests.canvas_tasks import collect, same
from tests.certificates import owner
from tests.integration.rig import text

Configure = Callable[..., None]
CANARY = "canary-5127"


def key() -> str:
    return base64.urlsafe_b64encode(os.urandom(32)).decode()


OLD, NEW = key(), key()


def echo(x: Any) -> Any:
    return x


@pytest.mark.parametrize(
    ("secret", "bound", "expected"),
    [
        (b"\1" * 32, b"", "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271"),
        (b"\3" * 32, b"c2sp.org/XAES-256-GCM", "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d"),
    ],
    ids=["least bit", "greatest bit"],
)
def test_the_cipher_does_what_its_standard_says(secret: bytes, bound: bytes, expected: str) -> None:
    # https://c2sp.org/XAES-256-GCM, test vectors
    nonce, cipher = b"ABCDEFGHIJKLMNOPQRSTUVWX", Xaes(secret)
    closed = cipher.encrypt(b"XAES-256-GCM", bound, nonce)
    assert closed == nonce + bytes.fromhex(expected)
    assert cipher.decrypt(closed, bound) == b"XAES-256-GCM"
    assert cipher.decrypt(closed, bound + b"x") is None
    assert cipher.decrypt(closed[:20], bound) is None


def test_a_call_runs_and_nothing_of_it_can_be_read_on_the_way(configure: Configure) -> None:
    configure(ENCRYPT=True, ENCRYPTION_KEYS=[NEW])
    task = declare(lambda x, *, y: [x, y])
    [message] = task.s(CANARY, y={CANARY: 1}).plan().messages
    assert CANARY not in dump_message(message)
    assert base64.b64encode(CANARY.encode())[:8] not in dump_message(message).encode()
    assert (message.content_type, message.compression) == (ENCRYPTED, None)
    assert (message.args_repr[:11], message.kwargs_repr) == ("<encrypted ", "<encrypted>")
    outcome = outcome_of(message)
    assert outcome.state == states.SUCCESS
    assert CANARY.encode() not in outcome.value
    results["default"].save([result_of(Delivery(message, "r"), outcome, "w1")])
    assert AsyncResult(message.id).get(0) == [CANARY, {CANARY: 1}]


@pytest.mark.parametrize("form", ["json", "msgpack", "yaml", "pickle", "auth"])
@pytest.mark.parametrize("compression", ["none", "zlib", "zstd"])
def test_it_lies_over_every_serializer_and_compression(
    configure: Configure, tmp_path: Any, form: str, compression: str
) -> None:
    certificates = owner(tmp_path, "site", trusted=tmp_path / "trusted").settings(tmp_path / "trusted")
    configure(
        **{**certificates, "ACCEPT": ["json", "msgpack", "yaml", "pickle", "auth"], "SERIALIZER": "json"},
        REQUIRE_SIGNATURE=True,
        ENCRYPT=True,
        ENCRYPTION_KEYS=[NEW],
    )
    message = sign(sent(declare(echo), CANARY * 100, serializer=form, compression=compression))
    verify(message)
    # Compressed first: what is encrypted does not become less.
    assert (len(message.body) < 1100) is (compression != "none")
    outcome = outcome_of(message)
    assert json.loads(reveal_value(outcome.value, message.id)) == CANARY * 100


def test_a_body_is_of_no_use_in_another_message(configure: Configure) -> None:
    configure(ENCRYPT=True, ENCRYPTION_KEYS=[NEW])
    task, other = declare(echo), declare(echo)
    one, two, third = sent(task, 1), sent(task, 2), sent(other, 3)
    for moved in (replace(two, body=one.body), replace(third, body=one.body), replace(one, task=other.name)):
        assert text(outcome_of(moved)).startswith("DecryptionError: the encrypted body is not that of this task")


def test_every_flipped_byte_is_refused(configure: Configure) -> None:
    configure(ENCRYPT=True, ENCRYPTION_KEYS=[NEW])
    message = sent(declare(echo), 1)
    for place in range(len(message.body)):
        body = bytearray(message.body)
        body[place] ^= 1
        with pytest.raises(DecryptionError):
            reveal(replace(message, body=bytes(body)))
    for size in (0, 1, 5, 30, len(message.body) - 1):
        with pytest.raises(DecryptionError):
            reveal(replace(message, body=message.body[:size]))


def test_the_first_key_encrypts_and_each_decrypts(configure: Configure) -> None:
    configure(ENCRYPT=True, ENCRYPTION_KEYS=[OLD])
    before, kept = sent(declare(echo), 1), conceal_value(b"5", "a")
    configure(ENCRYPT=True, ENCRYPTION_KEYS=[NEW, OLD])
    after = sent(declare(echo), 2)
    assert [outcome_of(message).state for message in (before, after)] == [states.SUCCESS] * 2
    assert reveal_value(kept, "a") == b"5"
    configure(ENCRYPTION_KEYS=[OLD])
    assert text(outcome_of(after)).startswith("DecryptionError: the body is encrypted with a key that is not among")
    configure(ENCRYPTION_KEYS=[NEW])
    assert outcome_of(after).state == states.SUCCESS
    with pytest.raises(DecryptionError, match="the result is encrypted with a key that is not among"):
        reveal_value(kept, "a")


def test_a_worker_without_keys_says_so_and_the_call_can_be_run_later(configure: Configure) -> None:
    configure(ENCRYPT=True, ENCRYPTION_KEYS=[NEW])
    message = sent(declare(echo), 1)
    configure()
    outcome = outcome_of(message)
    assert outcome.state == states.FAILURE
    assert text(outcome) == (
        "DecryptionError: the body is encrypted, and this process has no DJANGO_TASKS['ENCRYPTION_KEYS']"
    )
    [kept] = [result_of(Delivery(message, "r"), outcome, "w1").message]
    configure(ENCRYPTION_KEYS=[NEW])
    assert kept is not None
    assert outcome_of(kept).state == states.SUCCESS


def test_the_call_wins_over_the_task_and_the_task_over_the_setting(configure: Configure) -> None:
    def kinds(**options: Any) -> list[bool]:
        tasks = declare(echo), declare(echo, encrypt=True), declare(echo, encrypt=False)
        return [sent(task, 1, **options).content_type == ENCRYPTED for task in tasks]

    configure(ENCRYPTION_KEYS=[NEW])
    assert kinds() == [False, True, False]
    assert kinds(encrypt=True) == [True] * 3
    configure(ENCRYPT=True, ENCRYPTION_KEYS=[NEW])
    assert kinds() == [True, True, False]
    assert kinds(encrypt=False) == [False] * 3
    configure()
    with pytest.raises(ConfigurationError, match="without a key in DJANGO_TASKS\\['ENCRYPTION_KEYS'\\]"):
        sent(declare(echo), 1, encrypt=True)


def test_a_retry_is_encrypted_as_its_call_was(configure: Configure) -> None:
    configure(ENCRYPTION_KEYS=[NEW])

    def again(self: Task[..., Any], x: str) -> str:
        if self.request.retries == 0:
            self.retry(args=(x + x,), countdown=0)
        if self.request.retries == 1:
            self.retry(countdown=0)
        return x

    task = declare(again, bind=True)
    first = sent(task, CANARY, encrypt=True, compression="zlib")
    second = next_of(outcome_of(first))
    third = next_of(outcome_of(second))
    assert (second.content_type, third.body) == (ENCRYPTED, second.body)
    assert second.args_repr not in {first.args_repr, ""}
    assert json.loads(reveal_value(outcome_of(third).value, first.id)) == CANARY * 2
    assert next_of(outcome_of(sent(task, CANARY))).content_type == "application/json"


def test_what_a_task_tells_of_itself_is_encrypted_with_it(configure: Configure) -> None:
    configure(ENCRYPT=True, ENCRYPTION_KEYS=[NEW])
    told: list[Any] = []

    def progress(self: Task[..., Any], x: str) -> None:
        self.update_state(state="PROGRESS", meta={"at": x})

    message = sent(declare(progress, bind=True), CANARY)
    execute(Delivery(message, "r"), Site(worker="w1", eager=True, report=lambda _, outcome: told.append(outcome)))
    [outcome] = told
    assert CANARY.encode() not in outcome.value
    results["default"].save([result_of(Delivery(message, "r"), outcome, "w1")])
    assert AsyncResult(message.id).info == {"at": CANARY}


def test_a_result_is_of_no_use_under_another_id(configure: Configure) -> None:
    configure(ENCRYPTION_KEYS=[NEW])
    value = conceal_value(b"5", "one")
    assert reveal_value(value, "one") == b"5"
    with pytest.raises(DecryptionError, match="the encrypted result is not that of this task"):
        reveal_value(value, "two")
    with pytest.raises(DecryptionError, match="the result is no encrypted one"):
        reveal_value(value.replace(b'": "A', b'": "!'), "one")
    assert reveal_value(b"[1]", "one") == b"[1]"


def test_a_value_that_looks_like_an_encrypted_one_comes_back_as_it_was(configure: Configure) -> None:
    configure(ENCRYPTION_KEYS=[NEW])
    odd = json.loads(conceal_value(b"5", "one"))
    message = sent(declare(echo), odd)
    results["default"].save([result_of(Delivery(message, "r"), outcome_of(message), "w1")])
    assert AsyncResult(message.id).get(0) == odd


def test_people_and_celery_see_that_there_is_something_and_not_what(configure: Configure, kept: MemoryStore) -> None:
    configure(ENCRYPT=True, ENCRYPTION_KEYS=[NEW])
    message = sent(declare(echo), CANARY)
    outcome = outcome_of(message)
    assert value_tree(outcome.value.decode()) == "<encrypted>"
    assert _shown(outcome.value) == "<encrypted>"
    result = result_of(Delivery(message, "r"), outcome, "w1")
    back = load_meta(message.id, dump_meta(result))
    assert back is not None
    assert back.value == outcome.value


def test_calls_with_one_id_can_be_told_apart_and_others_tell_nothing(configure: Configure) -> None:
    configure(ENCRYPT=True, ENCRYPTION_KEYS=[NEW])
    task = declare(echo)
    one, same, other = (sent(task, value, task_id="a").args_repr for value in (1, 1, 2))
    assert one == same != other
    assert sent(task, 1, task_id="b").args_repr != one


def test_a_task_that_runs_in_its_caller_is_encrypted_too(configure: Configure) -> None:
    configure(ENCRYPT=True, ENCRYPTION_KEYS=[NEW], BROKERS={"default": {"BACKEND": "immediate"}})
    task = declare(echo)
    assert task.delay(CANARY).get(0) == CANARY
    assert task.apply((CANARY,)).get(0) == CANARY


def test_only_the_body_and_what_shows_it_differ(configure: Configure) -> None:
    configure(ENCRYPTION_KEYS=[NEW])
    plain = sent(declare(echo), 1)
    hidden = conceal(plain)
    changed = {field.name for field in fields(Message) if getattr(plain, field.name) != getattr(hidden, field.name)}
    assert changed == {"body", "content_type", "content_encoding", "args_repr", "kwargs_repr"}
    assert reveal(hidden).body == plain.body
    assert reveal(plain) is plain


def test_what_is_encrypted_waits_at_a_broker_as_it_is(configure: Configure, queue: MemoryBroker) -> None:
    configure(ENCRYPT=True, ENCRYPTION_KEYS=[NEW])
    declare(echo).delay(CANARY)
    [found] = brokers["default"].fetch(["default"], 1, lease=60.0, consumer="w1")
    assert CANARY.encode() not in found.message.body


def test_whoever_encrypts_nothing_loads_no_library() -> None:
    code = (
        "import sys, django; django.setup(); from django.core.checks import run_checks; run_checks(databases=[]);"
        "from tests.calls import declare, run; assert run(lambda x: x, 1).value == b'1';"
        "sys.exit('cryptography' in sys.modules)"
    )
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "tests.settings"}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)


def test_values_of_members_are_hidden_on_their_way_and_open_to_the_body(configure: Configure) -> None:
    configure(ENCRYPT=True, ENCRYPTION_KEYS=[NEW])
    whole = chord([same.s("alpha"), chain(same.s("beta"), group(same.s(), collect.s("gamma")))], collect.s("delta"))
    assert not any(word in repr(whole.frozen().plan()) for word in ("alpha", "beta", "gamma", "delta"))
    assert whole.apply().get() == [["alpha", ["beta", ["beta", "gamma"]]], "delta"]
