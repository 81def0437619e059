"""The rules of the service: models, fits and answers. Knows the engine; no HTTP and no disk."""
