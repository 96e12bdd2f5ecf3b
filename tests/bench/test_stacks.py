"""What a profile makes of py-spy's stacks."""

from bench.stacks import Spent, by_function, by_package

RUN = "run (/usr/lib/python3.11/asyncio/base_events.py:1)"
TAKE = "take (/srv/app/uplift/intake/accept.py:5)"
STACKS = [
    f"{RUN};{TAKE} 3",
    f"{RUN};{TAKE};execute (/e/lib/python3.11/site-packages/sqlalchemy/engine.py:7) 2",
    f"{RUN} 1",
]


def test_functions_are_told_with_what_they_take_themselves_and_with_what_they_call() -> None:
    assert by_function(STACKS) == [
        Spent("uplift/intake/accept.py: take", 3, 5),
        Spent("sqlalchemy/engine.py: execute", 2, 2),
        Spent("asyncio/base_events.py: run", 1, 6),
    ]


def test_packages_are_libraries_and_the_rooms_of_uplift() -> None:
    assert by_package(STACKS) == [
        Spent("uplift/intake", 3, 5),
        Spent("sqlalchemy", 2, 2),
        Spent("asyncio", 1, 6),
    ]


def test_a_function_that_calls_itself_counts_once() -> None:
    assert by_function(["f (a.py:1);f (a.py:1) 4"]) == [Spent("a.py: f", 4, 4)]
