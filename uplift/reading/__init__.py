"""Reading: what a caller learns about uploads, and what 1upHealth has stored.

* `long_poll`: a request waits until its upload changes
* `status` opens the status of an upload
* `read_back`: FHIR reads at 1upHealth, with the user's own token
"""
