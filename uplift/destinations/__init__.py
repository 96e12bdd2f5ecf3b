"""The connection to 1upHealth, or to any FHIR server: requests out, classified responses in.

`client` makes one HTTP request, `contents` reads the content of the response within a limit, and
`responses` classifies what came back.
"""
