"""Checks of an installation, of a folder of raw data and of a training run, in lines for people."""
