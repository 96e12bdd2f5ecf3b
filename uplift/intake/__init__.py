"""Accepts uploads. A request meets the files in this order.

`authenticate` finds its credential, and `rate_limit` its caller's rate limit. `submission` parses a
resource, and `labels` what is said about it; `ndjson` cuts a batch into lines. `back_pressure`
refuses it while too much waits, and `version_taken` if its user's destination does not take it.
`accept` commits one upload, as `sealed` makes it, and `accept_batch` many.
"""
