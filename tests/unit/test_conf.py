"""Is what DJANGO_TASKS says read, and what it cannot say refused with the way out?"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Any

import pytest
from django.test import override_settings

from django_tasks import conf
from django_tasks.exceptions import ConfigurationError, DjangoTasksError


def told(given: Any) -> str:
    """Return all that is said of a value of the setting."""
    return "\n".join(f"{problem.message} {problem.hint}".strip() for problem in conf.problems(given))


def test_with_nothing_set_broker_and_results_are_the_default_database() -> None:
    with override_settings(DJANGO_TASKS={}):
        found = conf.get()
        assert found == conf.Settings()
        assert (found.brokers, found.results) == ({"default": {"BACKEND": "database"}},) * 2
        assert (found.lease, found.heartbeat, found.grace, found.max_crashes) == (30.0, 5.0, 25.0, 3)


def test_a_site_without_the_setting_has_the_defaults(settings: Any) -> None:
    settings.DJANGO_TASKS = {"LEASE": 5}
    del settings.DJANGO_TASKS
    assert conf.get() == conf.Settings()


def test_each_key_is_the_name_of_a_field_in_capitals() -> None:
    with override_settings(DJANGO_TASKS={"MAX_RETRIES": None, "GRACE": 0, "POOL": "solo"}):
        found = conf.get()
        assert (found.max_retries, found.grace, found.pool) == (None, 0, "solo")
        assert found.default_queue == "default"


def test_the_setting_is_read_once_and_again_when_a_test_overrides_it() -> None:
    with override_settings(DJANGO_TASKS={"LEASE": 10}):
        first = conf.get()
        assert conf.get() is first
        with override_settings(DJANGO_TASKS={"LEASE": 20}):
            assert conf.get().lease == 20
        assert conf.get().lease == 10


def test_another_setting_changes_nothing() -> None:
    with override_settings(DJANGO_TASKS={"LEASE": 10}):
        before = conf.get()
        with override_settings(DEBUG=True):
            assert conf.get() is before


def test_secrets_are_not_told() -> None:
    for given in ({"ENCRYPTION_KEYS": ["tell-nobody"]}, {"SECURITY_KEY_PASSWORD": ["tell-nobody"]}):
        assert "must be" in told(given)
        assert "tell-nobody" not in told(given)
    with override_settings(DJANGO_TASKS={"SECURITY_KEY_PASSWORD": "tell-nobody"}):
        assert "tell-nobody" not in repr(conf.get())


def test_what_cannot_be_is_an_error_of_configuration_with_its_hint() -> None:
    with (
        override_settings(DJANGO_TASKS={"LEESE": 10}),
        pytest.raises(ConfigurationError, match=r"has an unknown key 'LEESE'\. Did you mean 'LEASE'\?") as caught,
    ):
        conf.get()
    assert isinstance(caught.value, DjangoTasksError)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (None, "DJANGO_TASKS must be a dict, not NoneType."),
        ([], "DJANGO_TASKS must be a dict, not list."),
        ({"lease": 5}, "DJANGO_TASKS has an unknown key 'lease'. Did you mean 'LEASE'?"),
        ({"MAX_RETRY": 5}, "DJANGO_TASKS has an unknown key 'MAX_RETRY'. Did you mean 'MAX_RETRIES'?"),
        ({"ACCEPT": []}, "DJANGO_TASKS['ACCEPT'] must be a list of some of json, msgpack, yaml, pickle, auth, not []."),
        (
            {"ACCEPT": ["json", []]},
            "DJANGO_TASKS['ACCEPT'] must be a list of some of json, msgpack, yaml, pickle, auth, not ",
        ),
        (
            {"ACCEPT": "json"},
            "DJANGO_TASKS['ACCEPT'] must be a list of some of json, msgpack, yaml, pickle, auth, not 'json'.",
        ),
        ({"SERIALIZER": "yaml"}, "DJANGO_TASKS['SERIALIZER'] is 'yaml', which DJANGO_TASKS['ACCEPT'] does not name."),
        ({"SERIALIZER": []}, "DJANGO_TASKS['SERIALIZER'] must be 'json' or "),
        (
            {"ACCEPT": ["json", "pickle"]},
            "DJANGO_TASKS['ACCEPT'] names 'pickle', and DJANGO_TASKS['REQUIRE_SIGNATURE'] is not True. Whoever",
        ),
        (
            {"ACCEPT": ["application/x-python-serialize", "json"], "SIGN": True},
            "DJANGO_TASKS['ACCEPT'] names 'pickle', and DJANGO_TASKS['REQUIRE_SIGNATURE'] is not True.",
        ),
        ({"SIGNATURE_MAX_AGE": 7}, "DJANGO_TASKS['SIGNATURE_MAX_AGE'] must be a timedelta, or None for ever, not 7."),
        (
            {"ENCRYPTION_KEYS": ["tell-nobody"]},
            "DJANGO_TASKS['ENCRYPTION_KEYS'] must be a list of keys, each 32 random bytes in URL-safe base64. Make one",
        ),
        ({"ENCRYPTION_KEYS": "A" * 43 + "="}, "DJANGO_TASKS['ENCRYPTION_KEYS'] must be a list of keys"),
        ({"ENCRYPTION_KEYS": ["!" + "A" * 43 + "="]}, "DJANGO_TASKS['ENCRYPTION_KEYS'] must be a list of keys"),
        (
            {"ENCRYPT": True},
            "DJANGO_TASKS['ENCRYPT'] is True, and there is no key in ['ENCRYPTION_KEYS']. Make one: python -c",
        ),
        ({"SECURITY_KEY_PASSWORD": 5}, "DJANGO_TASKS['SECURITY_KEY_PASSWORD'] must be text, bytes or None."),
        ({"SECURITY_KEY": ""}, "DJANGO_TASKS['SECURITY_KEY'] must be a path, or None, not ''."),
        ({"SECURITY_DIGEST": "md5"}, "DJANGO_TASKS['SECURITY_DIGEST'] must be 'sha256' or 'sha384' or 'sha512', not"),
        (
            {"ACCEPT": ["json", "application/data"]},
            "DJANGO_TASKS['ACCEPT'] names 'auth', and there is no ['SECURITY_CERT_STORE']. Name the folder",
        ),
        (
            {"ACCEPT": ["auth"], "SERIALIZER": "auth", "SECURITY_CERT_STORE": "/etc/tasks", "SECURITY_KEY": "key.pem"},
            "DJANGO_TASKS['SERIALIZER'] is 'auth', which needs ['SECURITY_KEY'] and ['SECURITY_CERTIFICATE'].",
        ),
        ({"COMPRESSION": ["zlib"]}, "DJANGO_TASKS['COMPRESSION'] must be None or 'zlib' or "),
        ({7: 5}, "DJANGO_TASKS has an unknown key 7. Known are: ACCEPT, ACKS_LATE, "),
        ({"LEASE": 0}, "DJANGO_TASKS['LEASE'] must be a number of seconds above 0, not 0."),
        ({"LEASE": "30"}, "DJANGO_TASKS['LEASE'] must be a number of seconds above 0, not '30'."),
        ({"LEASE": float("nan")}, "DJANGO_TASKS['LEASE'] must be a number of seconds above 0, not nan."),
        ({"HEARTBEAT": True}, "DJANGO_TASKS['HEARTBEAT'] must be a number of seconds above 0, not True."),
        ({"GRACE": -1}, "DJANGO_TASKS['GRACE'] must be a number of seconds, 0 or more, not -1."),
        ({"TIME_LIMIT": 0}, "DJANGO_TASKS['TIME_LIMIT'] must be a number of seconds above 0, or None, not 0."),
        ({"MAX_CRASHES": 0}, "DJANGO_TASKS['MAX_CRASHES'] must be a whole number above 0, not 0."),
        ({"CONCURRENCY": 1.5}, "DJANGO_TASKS['CONCURRENCY'] must be a whole number above 0, or None, not 1.5."),
        ({"MAX_RETRIES": -1}, "DJANGO_TASKS['MAX_RETRIES'] must be a whole number, or None for no end of retries"),
        ({"ON_CRASH": "die"}, "DJANGO_TASKS['ON_CRASH'] must be 'retry' or 'fail', not 'die'."),
        ({"KEEP_ARGUMENTS": "always"}, "DJANGO_TASKS['KEEP_ARGUMENTS'] must be 'never' or 'on_failure', not 'always'."),
        ({"TYPING": 1}, "DJANGO_TASKS['TYPING'] must be True or False, not 1."),
        ({"POOL": ""}, "DJANGO_TASKS['POOL'] must be a name, not ''."),
        ({"REVOCATIONS_KEPT": 90}, "DJANGO_TASKS['REVOCATIONS_KEPT'] must be a timedelta, or None for ever, not 90."),
        ({"ROUTES": ["a"]}, "DJANGO_TASKS['ROUTES'] must be a dict of routes, a function, or a list of these, not"),
        ({"ROUTES": {"a": 5}}, "DJANGO_TASKS['ROUTES']['a'] must be the name of a queue, or a dict of queue, exchange"),
        ({"ROUTES": [{5: "a"}]}, "DJANGO_TASKS['ROUTES'][5] stands for no task. Give a name, a pattern, or re.comp"),
        ({"ROUTES": {"a": {"queu": "b"}}}, "DJANGO_TASKS['ROUTES']['a'] must be the name of a queue, or a dict of"),
        ({"ROUTES": {"a": {"priority": 101}}}, "DJANGO_TASKS['ROUTES']['a'] must be a dict of queue, exchange"),
        ({"QUEUES": {"a": {"EXCHANGE": ""}}}, "DJANGO_TASKS['QUEUES']['a']['EXCHANGE'] must be a name, not ''."),
        (
            {"QUEUES": {"a": {"EXCHANGE": "e", "EXCHANGE_TYPE": "fan"}}},
            "['EXCHANGE_TYPE'] must be 'direct' or 'topic' or 'fanout' or 'headers', not 'fan'.",
        ),
        ({"QUEUES": {"a": {"EXCHANGE": "e", "ROUTING_KEY": [1]}}}, "['ROUTING_KEY'] must be text, or a list of texts"),
        (
            {"QUEUES": {"a": {"ROUTING_KEY": "k"}}},
            "DJANGO_TASKS['QUEUES']['a'] has ROUTING_KEY and no EXCHANGE. Name the exchange that it is bound to.",
        ),
        ({"BROKERS": {"default": "redis"}}, "DJANGO_TASKS['BROKERS'] must be a dict of dicts, not"),
        ({"BROKERS": {"bus": {"BACKEND": "memory"}}}, "has no 'default'. Name one of them 'default'."),
        ({"RESULTS": {}}, "DJANGO_TASKS['RESULTS'] has no 'default'. Name one of them 'default'."),
        (
            {"BROKERS": {"default": {}}},
            "DJANGO_TASKS['BROKERS']['default'] has no BACKEND. Give a short name or a dotted path.",
        ),
        (
            {"BROKERS": {"default": {"BACKEND": "memory", "LOCATOIN": "x"}}},
            "DJANGO_TASKS['BROKERS']['default'] has an unknown key 'LOCATOIN'. Did you mean 'LOCATION'?",
        ),
        (
            {"BROKERS": {"default": {"BACKEND": "memory", "OPTIONS": None}}},
            "DJANGO_TASKS['BROKERS']['default']['OPTIONS'] must be a dict, not None.",
        ),
        (
            {"QUEUES": {"mail": {"PRIO": 5}}},
            "DJANGO_TASKS['QUEUES']['mail'] has an unknown key 'PRIO'. Did you mean 'PRIORITY'?",
        ),
        (
            {"QUEUES": {"mail": {"PRIORITY": 101}}},
            "DJANGO_TASKS['QUEUES']['mail']['PRIORITY'] must be a whole number from -100 to 100, not 101.",
        ),
        (
            {
                "QUEUES": {"mail": {"BROKER": "buss"}},
                "BROKERS": {"default": {"BACKEND": "memory"}, "bus": {"BACKEND": "memory"}},
            },
            "DJANGO_TASKS['QUEUES']['mail']['BROKER'] names no broker: 'buss'. Did you mean 'bus'?",
        ),
        (
            {"QUEUES": {"mail": {"BROKER": "bus"}}},
            "DJANGO_TASKS['QUEUES']['mail']['BROKER'] names no broker: 'bus'. Known are: default.",
        ),
    ],
)
def test_each_error_names_the_key_and_what_it_should_be(given: Any, said: str) -> None:
    assert said in told(given)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"MAX_RETRIES": 0, "GRACE": 0, "DEFAULT_RETRY_DELAY": 0.5},
        {"TIME_LIMIT": None, "SOFT_TIME_LIMIT": 1.5, "CONCURRENCY": None, "REVOCATIONS_KEPT": None},
        {"REVOCATIONS_KEPT": timedelta(days=1), "ROUTES": {"a.*": "mail"}},
        {"ROUTES": [{re.compile("a"): {"exchange": "e", "routing_key": "k", "priority": 1}}, print]},
        {"QUEUES": {"a": {"EXCHANGE": "e", "EXCHANGE_TYPE": "headers", "ARGUMENTS": {"x-match": "any"}}}},
        {"QUEUES": {"mail": {"BROKER": "default", "PRIORITY": -100}, "slow": {}}},
        {"BROKERS": {"default": {"BACKEND": "a.b.C", "LOCATION": "x://", "OPTIONS": {}}}},
    ],
)
def test_what_is_right_has_no_problems(given: Any) -> None:
    assert told(given) == ""


def test_every_problem_is_told_not_the_first_alone() -> None:
    assert len(list(conf.problems({"LEASE": 0, "GRACE": -1, "NONSENSE": 1}))) == 3


def test_a_word_like_no_other_is_answered_with_all_that_are_known() -> None:
    assert conf.nearest("zzz", ["two", "one"]) == "Known are: one, two."


def test_a_default_is_always_right() -> None:
    defaults = conf.Settings()
    assert told({key: getattr(defaults, entry.name) for key, entry in conf._KEYS.items()}) == ""
