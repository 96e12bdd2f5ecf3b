"""The scenario of a chaos run."""

from collections import Counter
from typing import get_args

import pytest

from chaos import scenario
from chaos.lasting import LASTING
from chaos.options import Options
from chaos.scenario import Scenario
from uplift.cli.local.system import Like
from uplift.sandbox import rules

OPTIONS = Options(uploads=1000, kills=27, seed=7)


@pytest.fixture(scope="module")
def written() -> Scenario:
    return scenario.write(OPTIONS)


def test_the_seed_decides_everything(written: Scenario) -> None:
    assert scenario.write(OPTIONS) == written
    assert scenario.write(Options(uploads=1000, kills=27, seed=8)) != written


def test_a_scenario_has_as_many_uploads_and_kills_as_asked_for(written: Scenario) -> None:
    sent = [each for device in written.devices for step in device for each in step.versions]
    assert len(sent) == OPTIONS.uploads
    assert sum(fault.kind == "kill" for fault in written.faults) == OPTIONS.kills


def test_no_two_versions_have_the_same_bytes(written: Scenario) -> None:
    sent = [each for device in written.devices for step in device for each in step.versions]
    assert len({each.sha256 for each in sent}) == len(sent)


def test_a_record_belongs_to_one_device_and_its_versions_go_up(written: Scenario) -> None:
    seen: dict[tuple[str, str], tuple[int, int]] = {}
    for device, steps in enumerate(written.devices):
        for version in (each for step in steps for each in step.versions):
            record = (version.user, version.record)
            of, last = seen.get(record, (device, 0))
            assert (of, version.number) == (device, last + 1)
            seen[record] = (device, version.number)


def test_a_batch_holds_no_record_twice(written: Scenario) -> None:
    batches = [step for steps in written.devices for step in steps if len(step.versions) > 1]
    assert batches
    for batch in batches:
        assert len({each.record for each in batch.versions}) == len(batch.versions)
        assert batch.key is None


def test_every_process_and_server_is_killed_and_started_again(written: Scenario) -> None:
    done = Counter((fault.kind, fault.target) for fault in written.faults)
    for target in (*written.processes, "redis", "postgres"):
        assert done["kill", target] == done["start", target] > 0


def test_a_frozen_process_thaws_after_its_lease(written: Scenario) -> None:
    frozen = [fault for fault in written.faults if fault.kind == "freeze"]
    assert frozen
    for fault in frozen:
        thawed = [
            other.at
            for other in written.faults
            if (other.kind, other.target) == ("thaw", fault.target) and other.at > fault.at
        ]
        assert min(thawed) - fault.at > OPTIONS.lease


def test_a_heavy_person_has_nine_tenths_of_all_uploads_and_sends_them_first() -> None:
    options = Options(uploads=1000, kills=27, seed=7, heavy=True)
    written = scenario.write(options)
    sent = [
        (step.at, version.user)
        for device in written.devices
        for step in device
        for version in step.versions
    ]
    assert len(sent) == options.uploads
    people = Counter(user for _, user in sent)
    assert people[scenario.HEAVY_PERSON] == 900
    assert len(people) == options.users
    early = [at for at, user in sent if user == scenario.HEAVY_PERSON and at < options.seconds / 2]
    assert len(early) > 800
    assert max(at for at, user in sent if user != scenario.HEAVY_PERSON) > options.seconds / 2


@pytest.mark.parametrize("like", get_args(Like))
@pytest.mark.parametrize("beyond", [False, True])
def test_the_sandbox_accepts_the_rules_of_every_upstream_fault(like: Like, beyond: bool) -> None:
    for faults in scenario.upstream_faults(Options(like=like, beyond=beyond)).values():
        rules.RULES.validate_python(faults)


def test_delays_are_within_settle_and_index_lag_unless_beyond_is_asked_for() -> None:
    within, beyond = Options(), Options(beyond=True)
    assert within.late < within.settle < beyond.late
    assert within.lag < within.index_lag < beyond.lag


def test_the_ledger_goes_back_twice_and_people_are_added_between(written: Scenario) -> None:
    kinds = ("back up", "promote", "restore", "add people")
    order = [
        (fault.kind, fault.target)
        for fault in sorted(written.faults, key=lambda fault: fault.at)
        if fault.kind in kinds
    ]
    assert order == [
        ("back up", "standby"),
        ("promote", "standby"),
        ("back up", "backup"),
        ("add people", ""),
        ("restore", "backup"),
        ("add people", ""),
    ]
    assert written.late == ("person-8", "person-9")


def test_a_long_run_draws_every_fault(written: Scenario) -> None:
    options = Options(uploads=100)
    faults = scenario.write(options).faults
    assert {fault.target for fault in faults if fault.kind == "begin"} == set(LASTING)
    upstream = {fault.target for fault in faults if fault.kind == "upstream"} - {"healthy"}
    assert upstream == set(scenario.upstream_faults(options))
