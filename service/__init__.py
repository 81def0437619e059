"""The service: Gaussian mixtures declared, fitted and asked over HTTP.

``main`` makes the application, ``wiring`` builds what it stands on, ``cli`` starts it. The rooms:
``api`` knows HTTP, ``domain`` the rules, ``adapters`` disks and threads.
"""

__version__ = "0.1.0"
