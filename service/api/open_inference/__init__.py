"""The Open Inference Protocol, version 2, over REST: another face on the same verbs.

Under ``/v2`` other rules hold than in the native API, since clients of model servers expect them:
a body is told from another by ``Inference-Header-Content-Length`` and never by its media type, and
a refusal is ``{"error": "…"}`` as ``application/json`` (``service.api.problems``).
"""

from service.api.open_inference import models, repository, server

ROUTERS = (
    server.router,
    repository.statistics_router,  # before the models': /v2/models/stats is no model
    models.router,
    repository.router,
)
