"""Passes that decide which equations share a kernel, and in how many parts."""
