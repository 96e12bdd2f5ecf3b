"""docker-compose.yml: each service gets what it needs, and every file, command and secret exists.

No container engine runs here. tests/wide/test_tools.py compares the file with Compose's schema.
"""

import re
import shutil
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from dotenv import dotenv_values

from tests.ops.files import PROMETHEUS, ROOT
from uplift.cli.local.needs import NEEDS
from uplift.cli.local.system import ADMIN_PORTS, PROCESSES
from uplift.cli.main import COMMANDS
from uplift.sealing import KeyRing
from uplift.settings import Settings

TEXT = (ROOT / "docker-compose.yml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if "build" in service}
OTHERS = {name: service for name, service in SERVICES.items() if "build" not in service}
SANDBOX_ENV = dotenv_values(ROOT / "ops" / "compose" / "sandbox.env")
ROLES = {
    "migration_database_url": "uplift_owner",
    "database_url": "uplift",
    "reader_database_url": "uplift_reader",
}
SECRET = re.compile(r"PASSWORD|SECRET|KEYS|AUTH|TOKEN|_URL_FILE")


def make_secrets(folder: Path) -> dict[str, str]:
    done = subprocess.run(
        ["/bin/sh", ROOT / "ops" / "make-secrets.sh", folder, "postgres", "redis"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return {file.name: file.read_text() for file in folder.iterdir()}


def bound_files() -> set[str]:
    """What services mount from this repository."""
    volumes = [volume for each in SERVICES.values() for volume in each.get("volumes", ())]
    return {volume.split(":")[0] for volume in volumes if volume.startswith("./")}


def test_it_has_these_services_and_no_others() -> None:
    assert set(OURS) == {"migrate", "sandbox", *PROCESSES}
    assert set(OTHERS) == {"postgres", "redis", "prometheus", "grafana"}


def test_what_is_only_for_a_trial_or_for_monitoring_has_a_profile() -> None:
    found = {name: each["profiles"] for name, each in SERVICES.items() if "profiles" in each}
    assert found == {
        "sandbox": ["sandbox"],
        "prometheus": ["monitoring"],
        "grafana": ["monitoring"],
    }
    assert SANDBOX_ENV["COMPOSE_PROFILES"] == "sandbox,monitoring"


@pytest.mark.parametrize("name", OURS)
def test_each_of_our_services_runs_its_own_command(name: str) -> None:
    words = OURS[name]["command"]
    # In a container, Flower and the sandbox must listen on more than loopback.
    assert [word for word in words if not word.startswith("--")] == ["uplift", name]
    assert name in COMMANDS
    assert shutil.which("uplift", path=str(Path(sys.executable).parent))


@pytest.mark.parametrize("name", OURS)
def test_each_of_our_services_gets_the_secrets_that_it_needs_as_files(name: str) -> None:
    environment = OURS[name]["environment"]
    files = {
        key.removesuffix("_FILE"): value
        for key, value in environment.items()
        if key.endswith("_FILE")
    }
    # The sandbox keeps nothing in a container, so it has nothing to seal.
    assert set(files) == NEEDS[name] - {"SANDBOX_STATE_KEY"}
    assert set(files.values()) == {f"/run/secrets/{each}" for each in OURS[name]["secrets"]}
    assert not [key for key in environment if SECRET.search(key) and not key.endswith("_FILE")]


def test_each_secret_is_a_file_that_the_script_makes_and_somebody_uses(tmp_path: Path) -> None:
    made = make_secrets(tmp_path / "secrets")
    # For an operator who only reads: no service needs it.
    del made["reader_database_url"]
    assert set(made) == set(COMPOSE["secrets"])
    for name, secret in COMPOSE["secrets"].items():
        assert secret == {"file": f"./secrets/{name}"}
    used = {
        secret if isinstance(secret, str) else secret["source"]
        for service in SERVICES.values()
        for secret in service.get("secrets", ())
    }
    assert used == set(made)


def test_the_script_makes_secrets_that_fit_each_other_and_keeps_them(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    made = make_secrets(folder)
    assert make_secrets(folder) == made
    logins = dict(re.findall(r"CREATE ROLE (\w+) LOGIN PASSWORD '(\w+)'", made["roles.sql"]))
    assert len({*logins.values(), made["postgres_password"]}) == 4
    for name, role in ROLES.items():
        assert made[name] == f"postgresql://{role}:{logins[role]}@postgres:5432/uplift"
    assert made["redis_url"] == f"redis://:{made['redis_password']}@redis:6379/0"
    assert KeyRing.parse(made["master_keys"]).ids == ("main",)
    options = dict(line.split(" ", 1) for line in made["redis.conf"].splitlines())
    assert options == {
        "requirepass": made["redis_password"],
        "appendonly": "yes",
        "appendfsync": "everysec",
        "maxmemory-policy": "noeviction",
    }
    own = [made[name] for name in ("postgres_password", "redis_password", "oneup_client_secret")]
    assert len(set(own)) == 3
    assert all(re.fullmatch("[0-9a-f]{48}", each) for each in own)


def test_only_the_owner_enters_the_folder_of_secrets_and_containers_read_them(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "secrets"
    make_secrets(folder)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    # Compose mounts them with these modes, and accounts in containers have other numbers.
    assert {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()} == {0o444}


def test_no_secret_is_in_an_argument_or_a_variable() -> None:
    # Compose takes variables from .env. No secret is there, so it may insert none.
    assert not re.search(r"(?<!\$)\$[\w{]", TEXT)
    for service in SERVICES.values():
        for word in service.get("command", ()):
            assert not re.search("pass|secret|auth", word) or word.startswith("/run/secrets/")


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_cannot_change_its_own_files_or_gain_rights(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["security_opt"] == ["no-new-privileges:true"]
    # PostgreSQL and Redis begin as root, and become accounts of their own.
    assert (service.get("cap_drop") == ["ALL"]) == (name not in ("postgres", "redis"))
    assert not service.get("privileged")


def test_what_is_mounted_exists_and_is_read_only() -> None:
    assert bound_files()
    for path in bound_files():
        assert (ROOT / path).exists(), path
    for service in SERVICES.values():
        for volume in service.get("volumes", ()):
            if volume.startswith("./"):
                assert volume.endswith(":ro")
            else:
                assert volume.split(":")[0] in COMPOSE["volumes"]


def test_ports_are_published_on_loopback_only() -> None:
    published = {name: each["ports"] for name, each in SERVICES.items() if "ports" in each}
    assert set(published) == {"api", "flower", "grafana"}
    for ports in published.values():
        assert all(re.fullmatch(r"127\.0\.0\.1:(\d+):\1", port) for port in ports)


def test_images_have_a_version() -> None:
    for service in OTHERS.values():
        assert re.search(r":v?\d+", service["image"])


def test_our_containers_wait_for_the_migration() -> None:
    for name, service in OURS.items():
        if name == "migrate":
            assert service["depends_on"] == {"postgres": {"condition": "service_healthy"}}
        elif name != "sandbox":
            wait = service["depends_on"]["migrate"]["condition"]
            assert wait == "service_completed_successfully", name


def test_every_service_that_stays_up_has_a_health_check() -> None:
    for name, service in SERVICES.items():
        if name != "migrate":
            assert service["healthcheck"]["test"], name


def test_workers_are_checked_at_their_admin_port_which_is_not_published() -> None:
    checks = [SERVICES[name]["healthcheck"] for name in ("worker", "bulk", "beat")]
    for name, check in zip(("worker", "bulk", "beat"), checks, strict=True):
        port = SERVICES[name]["environment"]["UPLIFT_ADMIN_PORT"]
        assert f"http://127.0.0.1:{port}/healthz" in check["test"][-1]
        assert check == checks[0]
        assert "ports" not in SERVICES[name]
        # It asks the loop, and then Redis, for some seconds each.
        assert int(check["timeout"].removesuffix("s")) > 10


def test_the_trial_sends_to_the_sandbox(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in SANDBOX_ENV.items():
        monkeypatch.setenv(name, value or "")
    settings = Settings()
    (port,) = (word.split("=")[1] for word in OURS["sandbox"]["command"] if "--port=" in word)
    for url in (settings.oneup_fhir_url, settings.oneup_token_url, settings.oneup_users_url):
        assert url.startswith(f"http://sandbox:{port}")
    assert {name.removeprefix("UPLIFT_").lower() for name in SANDBOX_ENV} - {
        "compose_profiles"
    } <= set(Settings.model_fields)


def test_prometheus_scrapes_every_process_and_knows_the_alerts() -> None:
    config = yaml.safe_load((ROOT / "ops" / "compose" / "prometheus.yml").read_text())
    (job,) = config["scrape_configs"]
    assert job["job_name"] == "uplift"
    (found,) = job["dns_sd_configs"]
    assert set(found["names"]) == set(ADMIN_PORTS)
    for name in found["names"]:
        assert OURS[name]["environment"]["UPLIFT_ADMIN_PORT"] == str(found["port"])
    mounted = dict(each.split(":")[:2] for each in OTHERS["prometheus"]["volumes"])
    assert mounted[f"./{(PROMETHEUS / 'alerts.yml').relative_to(ROOT)}"] == (
        f"/etc/prometheus/{config['rule_files'][0]}"
    )


def test_grafana_finds_prometheus_and_the_dashboard() -> None:
    provisioning = ROOT / "ops" / "grafana" / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())[
        "datasources"
    ]
    assert source["type"] == "prometheus"
    assert source["url"] == "http://prometheus:9090"
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "uplift.yml").read_text())[
        "providers"
    ]
    mounted = dict(each.split(":")[:2] for each in OTHERS["grafana"]["volumes"])
    assert mounted["./ops/grafana/uplift.json"] == f"{provider['options']['path']}/uplift.json"
    assert (
        OTHERS["grafana"]["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
        == mounted["./ops/grafana/uplift.json"]
    )


def test_every_setting_that_it_sets_exists() -> None:
    for service in OURS.values():
        named = {name for name in service["environment"] if name.startswith("UPLIFT_")}
        known = {f"UPLIFT_{name.upper()}" for name in Settings.model_fields}
        assert {name.removesuffix("_FILE") for name in named} <= known


def test_secrets_and_settings_of_a_deployment_are_never_committed() -> None:
    ignored = (ROOT / ".gitignore").read_text().splitlines()
    assert {"/secrets/", ".env"} <= set(ignored)
