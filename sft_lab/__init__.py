"""SFT Lab: the helper package the chapters lean on. One flat module per station; see the README for the map."""

__version__ = "0.1.0"
