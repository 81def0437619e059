"""A whole service in this process, with the model ``groups``."""

from tests.service.conftest import client, fitted

__all__ = ["client", "fitted"]
