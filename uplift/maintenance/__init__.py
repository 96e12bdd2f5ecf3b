"""What keeps the ledger in order. Each file is one use case; no file needs another's result.

`uplift beat` runs three in loops: `sweep` (due retries, expired leases, lost dispatches), `retain`
(removes what is old) and `measure` (numbers for operators). A person starts the others: `restore`
(after a backup came back) and `rotate_keys` (a new master key).
"""
