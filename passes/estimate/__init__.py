"""What a kernel would take, before there is one."""
