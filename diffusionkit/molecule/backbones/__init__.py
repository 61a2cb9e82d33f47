"""Networks for molecules: every one takes and returns a dict of ragged tensors, one row for each atom."""
