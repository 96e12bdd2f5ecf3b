"""`--like hapi`: the FHIR API as HAPI FHIR JPA 8.8.0 was seen to answer, with its default settings.

Two bases, `/r4` and `/dstu2`, one store, no users. In the order in which a request passes them:
`routes` (HTTP), `login` (who may call), `parsing` (is it FHIR's JSON?), `references` (are its
targets there?), `writes` (what a PUT, POST or DELETE does), `bundles`, `searches`, `metadata`, and
`outcomes` (OperationOutcomes). `tests/hapi` sends the same requests to the real server.
"""
