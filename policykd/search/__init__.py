"""The smallest student that still does the job: a family over widths, depths and seeds, and a gate on fresh seeds."""
