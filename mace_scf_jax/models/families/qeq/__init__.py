"""MACEQEq: charges equilibrated over learned electronegativities."""
