"""From a claim in the ledger to a recorded outcome: how one upload is delivered.

The files in the order in which an upload passes them:

1. `deliver` claims uploads that are due, as many as `in_flight` has slots for and as
   `rate_limiter` (with `rate_limiter.lua`) gives `permits` for, while the ledger hears the
   `heartbeats` of the process.
2. `attempt` opens the claim: the result is one `Opened` value. Then
   `validation` validates it.
3. At 1upHealth, `oneup` sends it. Before, `lookup` asks whether an upload that may have been sent
   is there; `reconcile` is its rule.
   Where ids are derived, `derived` sends it. Before, `persons` makes the person's Patient, and
   `targets` finds what it refers to; `after_conflict` is the rule for what the server refuses
   because of what is there.
4. `calls` makes the requests.
5. `outcome` turns the result into one change of the upload, with `backoff` for the next attempt.
6. `deliver` gives the outcome to `uplift.ledger.leases.record`.

`results` has the frozen values that travel along this line. No file calls one before it.
"""
