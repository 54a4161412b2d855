"""Where metadata comes from: the kernel that has a filesystem mounted, or the devices themselves."""
