"""Names the Patient that stands for a user at a destination, where there is one already."""

from collections.abc import Mapping
from dataclasses import dataclass

from uplift.destinations.destination import Destination, Subject
from uplift.errors import Conflict
from uplift.ledger import named_patients, users
from uplift.ledger.audit import SYSTEM, Actor
from uplift.ledger.database import Database
from uplift.ledger.named_patients import Patients
from uplift.ledger.users import UserRow
from uplift.problem_types import ProblemType
from uplift.sealing import KeyRing
from uplift.users.move import require_destination

PATIENT_ID = r"^[A-Za-z0-9\-][A-Za-z0-9\-.]{0,63}$"
"""What an id of a Patient may be: FHIR's own ids (https://hl7.org/fhir/R4/datatypes.html#id), but
none that begins with a dot: dots mean another place in a path."""

NO_PATIENT_ID = (
    "A Patient's id has 1 to 64 characters: A-Z, a-z, 0-9, - and ., and no dot in front."
)


@dataclass(frozen=True, slots=True)
class NamedUser:
    """A user, and the Patients that their backend named for them."""

    user: UserRow
    patients: Patients


class PatientNamer:
    """Names Patients. Uplift refers to them, and never writes or deletes them."""

    def __init__(
        self, database: Database, key_ring: KeyRing, destinations: Mapping[str, Destination]
    ) -> None:
        self._database = database
        self._key_ring = key_ring
        self._destinations = destinations

    async def name(
        self, app_user_id: str, resource_id: str, destination: str | None, *, by: Actor = SYSTEM
    ) -> NamedUser:
        """Name the Patient of a user at a destination, by default at theirs. It is safe to repeat.

        Raises NotFound if there is no such user or destination. Raises Conflict if Uplift refers to
        no Patient there, or if something of the user was sent there: it refers to another one.
        """
        async with self._database.transaction() as connection:
            user = await users.require_user(connection, app_user_id)
            where = destination or user.destination
            _require_patients(require_destination(self._destinations, where))
            key = user.key(self._key_ring)
            before = await named_patients.lock(connection, user.id, key)
            if before.get(where) == resource_id:
                return NamedUser(user, before)
            if await named_patients.was_attempted(connection, user.id, where):
                raise _cannot(
                    "Records of the user were sent there already, and refer to another Patient."
                    " Erase the user with upstream=delete, add them again, and name the Patient"
                    " before you send."
                )
            after = {**before, where: resource_id}
            await named_patients.write(connection, user.id, key, after, by=by)
            return NamedUser(user, after)

    def of(self, user: UserRow) -> Patients:
        """The Patients that were named for a user, by their row."""
        return named_patients.named_for(user, self._key_ring)


def _require_patients(destination: Destination) -> None:
    if not (destination.derives_ids and destination.subject is Subject.PATIENT):
        raise _cannot(
            "At that destination records keep their subject as it is: Uplift refers to no Patient"
            " there."
        )


def _cannot(why: str) -> Conflict:
    return Conflict(ProblemType.PATIENT_CANNOT_BE_NAMED, why)
