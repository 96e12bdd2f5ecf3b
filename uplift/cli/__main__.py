"""`python -m uplift.cli`: the same as `uplift`."""

from uplift.cli.main import app

app()
