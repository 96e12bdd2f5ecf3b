"""The whole system on one machine.

`up` and `demo` are the commands. `system` starts `embedded` servers and all `processes`, each a
`child_process`, on free `ports`.
"""
