"""What the Celery application promises to the rest."""

import shlex

from uplift import queues
from uplift.cli.local.system import PROCESSES
from uplift.worker import tasks
from uplift.worker.app import app


def consumed_by(process: str) -> list[str]:
    words = PROCESSES[process]
    return words[words.index("-Q") + 1].split(",") if "-Q" in words else []


def test_every_queue_is_consumed_by_exactly_one_kind_of_process() -> None:
    consumed = [queue for process in PROCESSES for queue in consumed_by(process)]
    assert sorted(consumed) == sorted([queues.UPLOADS, queues.BULK, queues.CONTROL])
    assert sorted(consumed) == sorted(queue.name for queue in app.conf.task_queues)


def test_the_bells_tasks_are_the_workers_tasks() -> None:
    ours = {name for name in app.tasks if not name.startswith("celery.")}
    assert ours == {queues.DELIVER, queues.SWEEP, queues.RETAIN}
    assert {tasks.deliver.name, tasks.sweep.name, tasks.retain.name} == ours


def test_beat_sends_what_it_asks_for_to_a_queue_of_its_own() -> None:
    for entry in app.conf.beat_schedule.values():
        assert entry["task"] in (queues.SWEEP, queues.RETAIN)
        assert entry["options"]["queue"] == queues.CONTROL


def test_messages_are_acknowledged_late_and_leave_no_results() -> None:
    assert app.conf.task_acks_late
    assert app.conf.task_ignore_result
    assert app.conf.result_backend is None
    assert app.conf.accept_content == ["json"]


def test_every_worker_runs_threads() -> None:
    for process, words in PROCESSES.items():
        if "worker" in words:
            assert "-P threads" in shlex.join(words), process
