"""hm plan: parameters, memory, disk and time, before anything runs."""
