"""What is launched, as a reviewer can read it: the app of each kind of stage, against golden files."""

import json
import re
from dataclasses import asdict

import pytest
from torchx.specs import AppState

from api import keys
from api.experiment import APP_NAME_LIMIT, app_name
from api.plan import make_plan
from api.spec import ExperimentSpec
from api.stage_config import StageConfig
from api.stages import StageKind
from services.launch.appdef import ROLE, Site, identity, make_app, threads
from services.launch.cluster import AppPhase, LaunchRequest
from services.launch.phases import PHASES, to_phase
from tests.builders import make_spec
from tests.reference import assert_golden

SITE = Site("file:///home/someone/.solfa/bucket", threads=4)
ELASTIC = {"replicas": {"min": 1, "max": 4}, "processes": 2, "cpus": 8, "gpus": 2, "memory_mb": 65536, "parallelism": "fsdp"}


def request(spec: ExperimentSpec, stage: str, attempt: int = 1) -> LaunchRequest:
    plan = make_plan(spec)
    config = StageConfig(
        experiment_id="xaaaaaaaaaa", spec=spec, spec_sha256="0" * 64, plan=plan[stage], siblings=plan.stages, attempt=attempt, digest=None
    )
    return LaunchRequest(app_name("xaaaaaaaaaa", stage, attempt), keys.attempt_config("xaaaaaaaaaa", stage, attempt), config)


@pytest.mark.parametrize("kind", StageKind)
def test_each_kind_of_stage_is_launched_as_its_golden_file_says(kind: StageKind) -> None:
    spec = make_spec(compute={"main": ELASTIC})
    stage = next(stage.name for stage in make_plan(spec).stages if stage.kind is kind)
    app = make_app(request(spec, stage), SITE)
    shown = json.dumps(asdict(app), indent=2, sort_keys=True, default=str) + "\n"
    assert_golden(f"apps/{kind}.json", shown)


def test_rendering_is_pure() -> None:
    spec = make_spec()
    assert make_app(request(spec, "proxy"), SITE) == make_app(request(spec, "proxy"), SITE)
    assert re.fullmatch("[a-z0-9]+", ROLE)


def test_the_same_request_has_one_identity_wherever_it_runs() -> None:
    spec = make_spec()
    assert identity(request(spec, "proxy")) == identity(request(make_spec(), "proxy"))
    assert identity(request(spec, "proxy")) != identity(request(spec, "proxy", attempt=2))
    other = request(spec, "proxy")
    changed = other.config.model_copy(update={"spec_sha256": "1" * 64})
    assert identity(request(spec, "proxy")) != identity(LaunchRequest(other.app, other.config_key, changed))


@pytest.mark.parametrize(
    ("compute", "machine", "expected"),
    [
        ({}, 4, 4),  # says nothing of CPUs: the app's share of the machine
        ({"processes": 2}, 4, 2),
        ({"cpus": 1}, 4, 1),  # says so: no more than that
        ({"cpus": 16}, 4, 4),  # asks for more than there are
        ({"cpus": 8, "processes": 2}, None, 4),  # a cluster gives what is asked for
        ({"processes": 8}, 4, 1),
    ],
)
def test_threads_share_the_machine(compute: dict[str, int], machine: int | None, expected: int) -> None:
    spec = make_spec(compute={"default": compute})
    assert threads(spec.compute.default, Site("memory://", machine)) == expected


def test_names_fit_a_label() -> None:
    rounds = make_spec(doremi={"rounds": 20}, comparison={"mixtures": ["averaged", "reference", "uniform", "hardest", "easiest"]})
    longest = max((stage.name for stage in make_plan(rounds).stages), key=len)
    assert len(app_name("xaaaaaaaaaa", longest, 9999)) + len("-trainer-9999-0") <= APP_NAME_LIMIT


def test_every_foreign_phase_is_one_of_ours() -> None:
    assert set(PHASES) == set(AppState)
    assert to_phase(None) is AppPhase.ABSENT
    assert to_phase(AppState.RUNNING) is AppPhase.RUNNING
