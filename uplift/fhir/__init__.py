"""Judging FHIR resources: pure rules over bytes, nothing here waits or stores."""
