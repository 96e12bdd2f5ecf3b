"""The processes besides the API, each started by a command of the same name.

`process` is a worker (`uplift worker`, `uplift bulk`): it configures Celery (`app`), opens the
relay on a loop of its own (`bridge`), and runs the one task (`tasks`), which hands the ids of a
message over the bridge to the relay. `beat` sweeps, retains and measures. `flower` shows the
workers and their queues. `health` tells whether a process works.
"""
