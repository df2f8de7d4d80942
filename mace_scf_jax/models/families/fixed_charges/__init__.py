"""FixedChargeBaselinedMACE: formal charges that never change."""
