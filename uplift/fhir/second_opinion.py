"""What the library fhir.resources says about a resource."""

import importlib
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from threading import Lock
from typing import Protocol, cast

from pydantic import ValidationError

from uplift.fhir.versions import FhirVersion

# R4 is validated with the models of R4B. The package's root is R5, and for HealthKit's types R4B
# differs from R4 only in wider reference targets and `valueMeta`. fhir.resources 8 has no DSTU2.
_PACKAGES = {FhirVersion.STU3: "STU3", FhirVersion.R4: "R4B"}

_importing = Lock()


class _Model(Protocol):
    @staticmethod
    def model_validate_json(body: bytes) -> object: ...


@dataclass(frozen=True, slots=True)
class Objection:
    """Why fhir.resources refuses a resource. Its message is left out: it may quote values."""

    kind: str
    """Pydantic's name of the error, or the name of the exception that the library raised."""
    path: Sequence[str | int] = ()


@cache
def _model(version: FhirVersion, resource_type: str) -> _Model | None:
    package = _PACKAGES.get(version)
    if package is None:
        return None
    name = f"fhir.resources.{package}.{resource_type.lower()}"
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as missing:
        if missing.name != name:
            raise
        return None  # R4B dropped some types of R4
    return cast("_Model", getattr(module, resource_type))


def is_chosen(body: bytes, share: float) -> bool:
    """Whether a body is in this share (0 to 1) of all bodies, by its bytes: on any machine, and at
    each attempt, the same ones are."""
    return zlib.crc32(body) < share * 2**32


def objection(body: bytes, version: FhirVersion, resource_type: str) -> Objection | None:
    """The first error that fhir.resources finds. None if it finds none or has no such model.

    A model is imported at its first use: all of R4B takes 1.5 s and 100 MB.
    """
    try:
        with _importing:
            model = _model(version, resource_type)
        if model is not None:
            model.model_validate_json(body)
    except ValidationError as refused:
        # str() of the exception would contain field values.
        first = refused.errors(include_input=False, include_url=False, include_context=False)[0]
        return Objection(first["type"], first["loc"])
    except Exception as crash:  # noqa: BLE001  KeyError, TypeError and RecursionError were seen
        return Objection(type(crash).__name__)
    return None
