"""The claims, one module (or package) a chapter; each lists its own in ``CLAIMS``."""
