"""`uplift push`, in the order of the data.

`sources` and `health_export` read a file into `records`; `batches` sends them through `client`;
`push` waits for the outcomes, which `result` keeps and `report` shows.
"""
