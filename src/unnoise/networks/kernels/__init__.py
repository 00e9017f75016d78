"""C kernels for the CPU, compiled on first use where there is a C compiler; all works without them."""
