"""Doctor: whether this machine, its disks and its cluster are fit for a run, before it begins.

Reads the profile, the configuration and what the machine and Slurm tell; writes nothing but
temporary files, which it removes.
"""
