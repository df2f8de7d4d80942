"""FixedPoint: multipoles that answer the potential that they cause."""
