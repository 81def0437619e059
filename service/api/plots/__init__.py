"""Pictures over HTTP: drawn as SVG or PNG, or as the numbers that they show."""
