"""Studies that need many models or many sets of samples: sweeps, ablations, searches for steps."""
