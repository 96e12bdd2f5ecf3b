from collections import Counter

import pytest

from chaos import scenario
from chaos.scenario import Script
from chaos.terms import Terms
from uplift.sandbox import rules

TERMS = Terms(uploads=1000, kills=27, seed=7)


@pytest.fixture(scope="module")
def written() -> Script:
    return scenario.write(TERMS)


def test_the_seed_decides_everything(written: Script) -> None:
    assert scenario.write(TERMS) == written
    assert scenario.write(Terms(uploads=1000, kills=27, seed=8)) != written


def test_as_many_uploads_and_kills_as_asked_for(written: Script) -> None:
    sent = [each for device in written.devices for step in device for each in step.versions]
    assert len(sent) == TERMS.uploads
    assert sum(harm.kind == "kill" for harm in written.harms) == TERMS.kills


def test_no_two_versions_have_the_same_bytes(written: Script) -> None:
    sent = [each for device in written.devices for step in device for each in step.versions]
    assert len({each.sha256 for each in sent}) == len(sent)


def test_a_record_is_one_devices_and_its_versions_go_up(written: Script) -> None:
    seen: dict[tuple[str, str], tuple[int, int]] = {}
    for device, steps in enumerate(written.devices):
        for version in (each for step in steps for each in step.versions):
            record = (version.user, version.record)
            of, last = seen.get(record, (device, 0))
            assert (of, version.number) == (device, last + 1)
            seen[record] = (device, version.number)


def test_a_batch_holds_no_record_twice(written: Script) -> None:
    batches = [step for steps in written.devices for step in steps if len(step.versions) > 1]
    assert batches
    for batch in batches:
        assert len({each.record for each in batch.versions}) == len(batch.versions)
        assert batch.key is None


def test_everything_that_runs_is_killed_and_started_again(written: Script) -> None:
    done = Counter((harm.kind, harm.target) for harm in written.harms)
    for target in (*written.processes, "redis", "postgres"):
        assert done["kill", target] == done["start", target] > 0


def test_whoever_is_frozen_thaws_after_the_lease(written: Script) -> None:
    frozen = [harm for harm in written.harms if harm.kind == "freeze"]
    assert frozen
    for harm in frozen:
        thawed = [
            other.at
            for other in written.harms
            if (other.kind, other.target) == ("thaw", harm.target) and other.at > harm.at
        ]
        assert min(thawed) - harm.at > TERMS.lease


@pytest.mark.parametrize("beyond", [False, True])
def test_the_sandbox_can_read_every_weather(beyond: bool) -> None:
    for weather in scenario.weathers(Terms(beyond=beyond)).values():
        rules.RULES.validate_python(weather)


def test_delays_stay_within_the_clocks_unless_told_to_go_beyond() -> None:
    within, beyond = Terms(), Terms(beyond=True)
    assert within.late < within.settle < beyond.late
    assert within.lag < within.index_lag < beyond.lag
