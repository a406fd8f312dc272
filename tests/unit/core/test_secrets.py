"""Secrets are masked, and what is none is left."""

from __future__ import annotations

import pytest

from limbeck.core.secrets import HIDDEN, is_secret, masked, masked_text

ENVIRONMENT = {"MLFLOW_TRACKING_PASSWORD": "hunter2hunter2", "WANDB_API_KEY": "0123456789abcdef", "HOME": "/home/me", "A_TOKEN": "1"}


@pytest.mark.parametrize("name", ["MLFLOW_TRACKING_PASSWORD", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "apiKey", "api-key", "tracking.token", "password", "clientSecret"])
def test_names_that_are_secret(name):
    assert is_secret(name)


@pytest.mark.parametrize("name", ["key", "tokens", "tokenizer", "keyboard", "monkey", "KeyError", "public_key", "PATH", "max_new_tokens", "keep_float"])
def test_names_that_are_not(name):
    assert not is_secret(name)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("login with hunter2hunter2 failed", f"login with {HIDDEN} failed"),
        ("GET https://me:pa$s@host/x and https://host/y", f"GET https://{HIDDEN}@host/x and https://host/y"),
        ("HF_TOKEN=hf_abc is wrong", f"HF_TOKEN={HIDDEN} is wrong"),
        ('{"password": "a b", "user": "u"}', f'{{"password": {HIDDEN}, "user": "u"}}'),
        ("?api_key=abc&x=1", f"?api_key={HIDDEN}&x=1"),
        ("Authorization: Bearer abcdefgh12345", f"Authorization: Bearer {HIDDEN}"),
        ("prune.ratio must be in [0, 1), got 1.2; key=3f, tokens: 5", "prune.ratio must be in [0, 1), got 1.2; key=3f, tokens: 5"),
        ("value 1 of 12", "value 1 of 12"),
    ],
)
def test_text(text, shown):
    assert masked_text(text, ENVIRONMENT) == shown


def test_data_is_masked_by_name_and_by_value_and_is_otherwise_the_same():
    data = {"key": "3f", "api_key": "x", "n": {"token": 5, "password": None}, "list": ["hunter2hunter2", 1.5, True], "seed": 0}
    assert masked(data, ENVIRONMENT) == {"key": "3f", "api_key": HIDDEN, "n": {"token": HIDDEN, "password": None}, "list": [HIDDEN, 1.5, True], "seed": 0}
    assert data["api_key"] == "x"
