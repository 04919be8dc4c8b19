"""Secrets of training pods are named, not written: no manifest holds one, and no setting whose values are shown takes one."""

import json
from typing import Any

import pytest

from api.errors import BadRequest
from services.server import place
from services.settings import Settings
from tests.builders import make_spec
from tests.services.test_kubernetes_manifests import FULL, rendered

PLANTED = {
    "AWS_SECRET_ACCESS_KEY": "MARKED-aws",
    "AWS_SESSION_TOKEN": "MARKED-session",
    "HF_TOKEN": "MARKED-hub",
    "SOLFA_DATABASE_URL": "postgresql+psycopg://solfa:MARKED-database@db/solfa",
}


def test_no_manifest_holds_what_the_service_has_in_its_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in PLANTED.items():
        monkeypatch.setenv(name, value)
    settings = Settings.from_environment({**PLANTED, **FULL})
    shown = json.dumps(rendered(place(settings, settings.bucket), make_spec(), "prepare"))
    assert "MARKED" not in shown
    assert '"secretRef": {"name": "solfa-s3"}' in shown


SECRETS: dict[str, dict[str, Any]] = {
    "a hub token": {"HF_TOKEN": "MARKED"},
    "a secret key": {"AWS_SECRET_ACCESS_KEY": "MARKED"},
    "a password": {"wandb_password": "MARKED"},
    "an API key": {"WANDB_API_KEY": "MARKED"},
    "a password in a URL": {"HTTPS_PROXY": "http://me:MARKED@proxy:3128"},
}


@pytest.mark.parametrize("case", SECRETS)
def test_what_is_shown_takes_no_secret(case: str) -> None:
    """SOLFA_TRAINER_ENV is in every manifest, and so in every answer to validate_only."""
    with pytest.raises(BadRequest) as caught:
        Settings.from_environment({**FULL, "SOLFA_TRAINER_ENV": json.dumps(SECRETS[case])})
    assert "SOLFA_TRAINER_SECRET" in caught.value.message
    assert "MARKED" not in caught.value.message


def test_what_is_no_secret_is_taken() -> None:
    plain = {
        "TOKENIZERS_PARALLELISM": "false",
        "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
        "HTTPS_PROXY": "http://proxy:3128",
        "NCCL_DEBUG": "INFO",
    }
    assert Settings.from_environment({**FULL, "SOLFA_TRAINER_ENV": json.dumps(plain)}).trainer_env == plain
