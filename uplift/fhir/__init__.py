"""Validates FHIR resources. Pure rules over bytes: nothing here waits or stores.

* `versions`, `types`: the FHIR versions, and the resource types that 1upHealth accepts
* `validate`: the entry, from the bytes of an upload to a report
* `document`: parses the bytes, and finds the resources inside a resource
* `compiled`: the schemas of `schemas/`, which `generate/` makes from HL7's definitions
* `own_rules`: what one definition of a schema says about a value, without what is inside it
* `empties`: values without content, which count as absent
* `schema_findings`, `described_error`: what is wrong by the schema, and its words
* `invariants`, `constraints`, `narrative`: what is wrong by rules that no schema can express
* `expressions`, `findings`, `issues`: where it is, what kind it is, and the report
* `deviations`, `tolerances`: the catalogue of kinds that can be tolerated, and what is tolerated
* `second_opinion`: what the library fhir.resources says of a valid resource
* `interactions`: the reads that Uplift passes on to 1upHealth, parsed
"""
