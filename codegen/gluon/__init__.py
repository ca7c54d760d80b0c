"""From kernels whose warps have roles to Gluon, Triton's language of layouts and barriers; all others are Triton's."""
