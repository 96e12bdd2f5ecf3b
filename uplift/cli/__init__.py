"""The command line. `main` lists the commands; `lazy` imports one when it runs.

`environment` finds a running `uplift up`; `session` opens the ledger or all of Uplift for a
command, and `output` prints. Each command has one file, or a folder: `push/`, `local/` (`up` and
`demo`). `pages/` writes parts of the documentation.
"""
