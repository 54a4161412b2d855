"""Who uses what: subvolumes, paths, back references, subvolumes that are being deleted."""
