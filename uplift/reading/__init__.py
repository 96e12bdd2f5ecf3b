"""Reading: what a caller learns about uploads, and what their destination has stored.

* `long_poll`: a request waits until its upload changes
* `status` opens the status of an upload
* `read_back`: FHIR reads at the user's destination
* `of_person`: whose is what a server answers that many people share
"""
