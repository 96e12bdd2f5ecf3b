"""The connection to 1upHealth, or to any FHIR server: requests out, classified responses in.

* `destination`: what a destination is; `configured` makes them of the settings, with `presets`
* `derived_ids`, `references`: the ids that Uplift derives, and a record's form with them
* `requests`: method, address and headers of each request
* `http_client`: the connections of a process; `client` makes one request
* `contents` reads the content of the response within a limit; `responses` classifies what came
  back, with `receipts`, `same_content` and `refusals`
"""
