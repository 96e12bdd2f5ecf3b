"""`uplift push`, in the order of the data.

`sources` opens what a person has, and `kinds` says what each file is by its first bytes. `files`
are those of a folder or of an `archive`, whose `zip_members` are read by their headers.
`health_export` reads the records that a `health_index` names, `json_files` all others, and `notes`
keeps what else is to be told. The `records` go in `batches` through `client`, over the `network`
as it is here; `push` waits for the outcomes, which `result` keeps. `progress` shows how far it is,
and `report` what became of each.

`command` has the options, `session` is one run. With `--dry-run`, `dry_run` validates instead; with
`--watch`, `appearing` finds what to push.
"""
