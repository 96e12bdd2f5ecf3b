"""The connection to 1upHealth, or to any FHIR server: requests out, classified responses in.

`client` makes one HTTP request, and `responses` classifies what came back.
"""
