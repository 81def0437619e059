"""What stands behind the domain's ports: registries, job stores, runners, caches."""
