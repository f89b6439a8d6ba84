"""Are the names of secrets known from those that only look alike?"""

from __future__ import annotations

import pytest

from django_tasks.redaction import looks_secret

SECRET = (
    "password passwd PASSWORD db_password userPassword password1 new-password pass user_pass passphrase pwd secret "
    "SECRET_KEY client_secret clientSecret token auth_token accessToken csrftoken tokens api_key apikey APIKey API "
    "key keys private_key privatekey signing_key X-Api-Key auth Authorization oauth HTTP_AUTHORIZATION signature "
    "HTTP_COOKIE cookies sessionid session_id session_key sessionKey credentials jwt otp cvv bearer AWS_ACCESS_KEY_ID"
)
HARMLESS = (
    "monkey keyboard donkey turkey hockey keyword author authors authority bypass passenger compass passport secretary "
    "tokenizer tokenize capital rapid name email user_id pk url spin opinion design cook assign session_count apiary"
)


@pytest.mark.parametrize("name", SECRET.split())
def test_names_of_secrets(name):
    assert looks_secret(name)
    assert looks_secret("x" * 1000 + "_" + name)


@pytest.mark.parametrize("name", HARMLESS.split())
def test_names_that_only_look_alike(name):
    assert not looks_secret(name)
