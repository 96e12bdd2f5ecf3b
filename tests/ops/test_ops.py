"""ops/ and docs/metrics.md name metrics that exist; every alert has an entry in the runbook."""

import re
from typing import Any

import pytest
import yaml

from tests.ops.files import DASHBOARD, EXPRESSIONS, OTHERS, PROMETHEUS, ROOT, RULES
from tests.ops.promql import series
from uplift.cli.local.system import ADMIN_PORTS
from uplift.cli.pages.metrics import families, table


def exposed() -> dict[str, set[str]]:
    """The names of all series, each with its labels."""
    found: dict[str, set[str]] = {}
    for name, metric, labels in families():
        if metric.type == "histogram":
            found[f"{name}_bucket"] = {*labels, "le"}
            found[f"{name}_sum"] = found[f"{name}_count"] = set(labels)
        else:
            found[name] = set(labels)
    return found


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_an_expression_names_only_metrics_and_labels_that_exist(expression: str) -> None:
    named = series(expression)
    assert named, "it names no series"
    for name, labels in named:
        if name not in OTHERS:
            assert name in exposed()
            assert labels <= exposed()[name] | {"job", "process"}


def test_every_metric_is_on_the_dashboard() -> None:
    shown = {
        name
        for panel in DASHBOARD["panels"]
        for target in panel.get("targets", ())
        for name, _ in series(target["expr"])
    }
    assert {re.sub("_(bucket|sum|count)$", "", name) for name in shown} >= {
        name for name, _, _ in families()
    }


@pytest.mark.parametrize(
    "expression",
    [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ())],
)
def test_a_panel_shows_0_before_the_first_event_and_not_no_data(expression: str) -> None:
    named = {name for name, _ in series(expression)}
    gauges = {name for name, metric, _ in families() if metric.type == "gauge"}
    if "uplift_uploads_unfinished" in named:  # a state that no upload has is not measured
        assert expression.endswith(
            'or on () 0 * max(uplift_ledger_measured_timestamp_seconds{job="uplift"})'
        )
        return
    if named <= gauges | OTHERS:
        return  # measured from the start, 0 as well. Without that, nobody knows a number
    parts = expression.split(" + ")  # a sum is only there if all of its parts are
    assert all(re.search(r" or (on \(\) )?vector\(0\)\)?$", each) for each in parts)
    # Without an observation, a quantile is not a number, which is no data either.
    assert ("histogram_quantile" in expression) == (">= 0) or on () vector(0)" in expression)


def test_no_two_panels_overlap() -> None:
    ids = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(ids) == len(set(ids))
    taken: set[tuple[int, int]] = set()
    for panel in DASHBOARD["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: str(rule["alert"]))
def test_an_alert_has_a_severity_and_an_entry_in_the_runbook(
    rule: dict[str, Any],
) -> None:
    assert rule["labels"]["severity"] in ("page", "ticket")
    assert rule["annotations"]["summary"].endswith(".")
    page, _, anchor = rule["annotations"]["runbook_url"].partition("#")
    assert anchor == rule["alert"].lower()
    headings = re.findall(r"^#+ (.+)$", (ROOT / page).read_text(), re.MULTILINE)
    assert rule["alert"] in [heading.strip("` ") for heading in headings]


def test_no_two_alerts_have_one_name() -> None:
    names = [rule["alert"] for rule in RULES]
    assert len(names) == len(set(names))


def test_the_page_lists_every_metric() -> None:
    assert table() in (ROOT / "docs" / "metrics.md").read_text()


def test_names_follow_the_rules_of_prometheus() -> None:
    for name, metric, labels in families():
        assert re.fullmatch(r"uplift_[a-z_]+", name), name
        assert (metric.type == "counter") == name.endswith("_total"), name
        assert metric.documentation.endswith("."), name
        if metric.type == "histogram":
            assert name.endswith(("_seconds", "_entries")), name
        assert not {"user", "upload", "record", "batch", "id"} & set(labels), name


def test_the_example_scrapes_every_process_of_the_procfile() -> None:
    (job,) = yaml.safe_load((PROMETHEUS / "prometheus.yml").read_text())["scrape_configs"]
    assert job["job_name"] == "uplift"
    read = {
        each["labels"]["process"]: int(target.rpartition(":")[2])
        for each in job["static_configs"]
        for target in each["targets"]
    }
    assert read == ADMIN_PORTS
