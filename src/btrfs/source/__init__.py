"""Where metadata comes from: the kernel that has it mounted, or the devices themselves."""
