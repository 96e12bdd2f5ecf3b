"""Accepts uploads. A request meets the files in this order.

`authenticate` finds its credential, and `rate_limit` its caller's rate limit. `submission` parses a
resource; `ndjson` cuts a batch into lines. `back_pressure` refuses it while too much waits.
`accept` seals and commits one upload, `accept_batch` many.
"""
