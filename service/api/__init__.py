"""The HTTP face: routes, schemas, payload formats, problems. Knows the domain; no storage."""
