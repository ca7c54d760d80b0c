"""The sizes of tiles, and the warps and stages of their programs."""
