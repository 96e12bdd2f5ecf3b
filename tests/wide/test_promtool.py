"""What Prometheus' own tool says to its files."""

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.ops.units import UNITS

OPS = UNITS.parent

pytestmark = pytest.mark.skipif(shutil.which("promtool") is None, reason="no promtool here")


def promtool(*words: str | Path) -> str:
    done = subprocess.run(["promtool", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_promtool_finds_nothing_wrong_in_the_alerts() -> None:
    said = promtool("check", "rules", "--lint=all", "--lint-fatal", OPS / "prometheus/alerts.yml")
    assert "SUCCESS" in said


@pytest.mark.parametrize("file", ["prometheus/prometheus.yml", "compose/prometheus.yml"])
def test_promtool_reads_the_configuration_with_its_alerts(file: str, tmp_path: Path) -> None:
    # As they are mounted: the rules stand beside the configuration.
    for each in (OPS / file, OPS / "prometheus" / "alerts.yml"):
        shutil.copy(each, tmp_path)
    said = promtool("check", "config", tmp_path / Path(file).name)
    assert "1 rule files found" in said
    assert "SUCCESS" in said


def test_an_alert_fires_when_its_condition_has_lasted(tmp_path: Path) -> None:
    """The rules in a clock of promtool's own: one that pages, from its first second on."""
    shutil.copy(OPS / "prometheus" / "alerts.yml", tmp_path)
    (tmp_path / "tests.yml").write_text("""
rule_files: [alerts.yml]
evaluation_interval: 1m
tests:
  - interval: 1m
    input_series:
      - series: 'up{job="uplift", process="beat", instance="here"}'
        values: '1x5 0x30'
    promql_expr_test:
      - expr: count(ALERTS{alertname="UpliftTargetDown", alertstate="firing"}) or vector(0)
        eval_time: 4m
        exp_samples: [{labels: '{}', value: 0}]
      - expr: count(ALERTS{alertname="UpliftTargetDown", alertstate="firing"}) or vector(0)
        eval_time: 30m
        exp_samples: [{labels: '{}', value: 1}]
""")
    assert "SUCCESS" in promtool("test", "rules", tmp_path / "tests.yml")
