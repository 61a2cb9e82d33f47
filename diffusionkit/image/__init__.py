"""The image domain: data sets, networks and the way back to pictures."""
