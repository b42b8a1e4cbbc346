"""Description of the machine: processor, memory, GPUs, GEMM rate, kernel backends, and their faults."""
