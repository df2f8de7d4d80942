"""LocalSplitCharges: formal charges, and charge transferred along bonds."""
