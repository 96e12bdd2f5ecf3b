"""`uplift up`: what it says before it starts anything."""

import pytest

from uplift.cli.local.up import check_destinations
from uplift.errors import ConfigurationError
from uplift.settings import Settings


def test_a_wrong_destination_is_told_before_anything_starts() -> None:
    with pytest.raises(ConfigurationError, match="There is no preset 'azur'"):
        check_destinations(Settings(destination="azur"))
    with pytest.raises(ConfigurationError, match="needs client_secret"):
        check_destinations(
            Settings(
                destination="medplum",
                destination_r4="https://fhir.example.org",
                destination_client_id="uplift",
            )
        )


def test_what_it_makes_itself_need_not_be_set() -> None:
    check_destinations(Settings())
    check_destinations(Settings(destination="hapi", destination_r4="http://127.0.0.1/r4"))
