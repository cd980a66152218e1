"""Energy sensors, one file each."""
