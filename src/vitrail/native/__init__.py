"""Native CPU kernels: small C++ functions on raw pointers, compiled once per machine and cached.

The source is portable and compiled for the instruction set of this machine (`-march=native`). A build takes seconds, no
package ships binaries, and without a compiler the library falls back to PyTorch.
"""
