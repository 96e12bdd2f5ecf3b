"""`--like hapi` and its kind: the FHIR APIs of other servers than 1upHealth.

A base for each FHIR version, one store, no users. `profile` has what makes one kind answer
otherwise than another, and `profiles` a row for each. In the order in which a request passes them:
`routes` (HTTP), `login` and `assertions` (who may call), `limits` (size, media type, narrative),
`parsing` (is it FHIR's JSON?), `references` (are its targets there?), `writes` (what a PUT, POST or
DELETE does), `additions` (what is kept besides), `bundles`, `searches`, `metadata`, `throttling`
and `outcomes` (OperationOutcomes). `tests/hapi` sends the same requests to a real HAPI.
"""
