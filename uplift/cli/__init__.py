"""The command line. `main` lists the commands; `lazy` imports one when it runs.

`environment` finds a running `uplift up`; `session` opens the ledger or all of Uplift for a
command, and `output` prints. One file for each command; `push/`, `local/` (`up`, `demo` and their processes)
and `pages/` (which write parts of the documentation) are larger.
"""
