"""Teachers: readers that run nothing, live models, and the policy they all become."""
