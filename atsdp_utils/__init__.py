"""Utilities of the ATSDP-NET companion: what more than one notebook needs, or what deserves a unit test."""

__version__ = "0.1.0"
