"""``python -m service`` is the command ``gmm-service``."""

from service.cli import app

app(prog_name="gmm-service")
