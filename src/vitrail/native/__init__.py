"""Compiled operations for CPUs: small C++ on plain pointers, built once for this machine and kept in the cache.

The text is portable and the compiler is told to use what this machine has, so a build takes seconds, no package ships
binaries, and where there is no compiler nothing is lost but speed.
"""
