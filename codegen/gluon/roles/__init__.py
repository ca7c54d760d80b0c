"""Which kernels get roles for their warps, which ones, and where these pay."""
