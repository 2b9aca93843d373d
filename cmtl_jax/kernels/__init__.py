"""Kernels in C++ for programs that run on one CPU, compiled on the machine that uses them.

Where there is no compiler, or a program is for anything else, everything is computed by XLA.
"""
