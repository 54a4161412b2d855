"""How space is given out: the kernel's allocator, what is used, what can still be written."""
