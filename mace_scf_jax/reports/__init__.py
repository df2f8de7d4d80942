"""Pictures and pages about training runs and models: learning curves, parity plots, HTML reports.

Everything is drawn from files that a run leaves behind; nothing here changes them.
"""
