"""An auditor for language models that are said to have forgotten something."""

__version__ = "0.1.0"
