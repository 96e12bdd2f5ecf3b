"""The ledger: the only place of SQL. An upload meets its files in this order.

Under all of them are `tables`, `database` (the only place that commits), `migrate` and `server`;
`locks` (the lock order), `parameters` (many rows in one statement), `pages` and `filters`.

1. Who may submit: `users`, `credentials`, `user_keys`, `grants`, `token_pair`; `audit` notes acts.
2. Put in: `idempotency`; `accepting`, which adds `first_versions` and `later_versions` as
   `new_uploads`; `batches`. Of a later version, `joining` finds the record (`places`, `merging`,
   `source_aliases`), `watermarks` says whether it is late, and `superseding` makes room.
3. Sent: `backlog`; `leases` claims and records, `collisions` keeps records apart, `pauses` stops
   it, `parking` waits for a person or a token. `transitions` has the one function that changes a
   state.
4. Looked after: `processes` and what they `abandoned`, `sweeping`, `retrying_collisions`,
   `cancelling`, `dead_letters`.
5. Read: `uploads`, `attempts`, `summary`.
6. Removed: `retention`, `tombstones`, `erasing`; `restoring` after a restore of a backup.
"""
