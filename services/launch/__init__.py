"""Launching: the only importer of torchx and kubernetes."""
