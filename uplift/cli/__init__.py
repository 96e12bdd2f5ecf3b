"""The command line. `main` lists the commands; `lazy` imports one when it runs.

`environment` finds a running `uplift up`; `session` opens the ledger or all of Uplift for a
command, and `output` prints. Each command has a file. Larger are `push/`, `local/` (`up`, `demo`
and their processes) and `pages/` (it writes parts of the documentation).
"""
