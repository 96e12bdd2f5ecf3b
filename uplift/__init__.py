"""Uplift: a durable relay of FHIR records from Apple Health to a FHIR server."""

__version__ = "0.2.0"
