"""HL7's definitions of a FHIR version → one JSON Schema of its resource types."""
