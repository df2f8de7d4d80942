"""LocalCharges: multipoles read off the features of each atom."""
