"""What is known of each server, one row each. A deployment's settings override each field.

`docs/destinations/` has a page a row.
"""

from dataclasses import dataclass

from uplift.destinations.destination import Meaning, Mode, Subject


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """The fields of a destination that a kind of server decides. `login` names one of `logins`.

    `{base}` in `scope` stands for the destination's only base.
    """

    mode: Mode
    subject: Subject
    login: str
    scope: str = ""
    media_type: str
    on_conflict: Meaning
    on_precondition: Meaning
    bundle_entries: int = 1
    history: str = (
        "Servers may keep earlier versions and deleted resources as history. Its manual says how"
        " that is removed."
    )


PRESETS = {
    "oneup": Preset(
        mode=Mode.ONEUP,
        subject=Subject.AS_IS,
        login="oneup",
        media_type="application/json",
        on_conflict=Meaning.REFUSED,
        on_precondition=Meaning.REFUSED,
        bundle_entries=20,
    ),
    "hapi": Preset(
        mode=Mode.PUT,
        subject=Subject.PATIENT,
        login="none",
        media_type="application/fhir+json",
        on_conflict=Meaning.LOOK,  # of two PUTs at once the loser gets it, and so does If-Match
        on_precondition=Meaning.REFUSED,
        bundle_entries=50,
        history="HAPI keeps every version and each deletion as history, which only a request for"
        " that version shows. An operator of HAPI removes it with $expunge: see"
        " docs/destinations/hapi.md.",
    ),
}
