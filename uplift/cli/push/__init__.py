"""`uplift push`, in the order of the data.

`sources` opens what a person has, and `kinds` says what each file is by its first bytes. `files`
are those of a folder or of an `archive`, whose `zip_members` are read by their headers.
`health_export` reads the records that a `health_index` names, `json_files` all others, and `notes`
keeps what else is to be told. The `records` go in `batches` through `client`; `push` waits for the
outcomes, which `result` keeps and `report` shows.
"""
