"""`python -m cli`: the same as `uplift`."""

from cli.main import app

app()
