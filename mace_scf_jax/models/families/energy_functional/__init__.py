"""EnergyFunctional: multipoles that minimise a learned, convex energy."""
