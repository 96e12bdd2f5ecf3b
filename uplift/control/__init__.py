"""Controls uploads that are in the ledger, for their owners and for operators.

`cancel` ends uploads, `redrive` starts dead letters from zero, and `pause` stops sending. Groups of
uploads follow the retry policy of `deadlocks`.
"""
