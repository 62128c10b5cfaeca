"""The sheet as an experiment: every statement a claim, every claim a verdict.

Data flows one way: ``statements`` (what the sheet says) and ``claims`` (how it is checked) -> ``evaluate`` (one claim)
-> ``runner`` (many, in worker processes) -> ``store`` (a folder of records) -> ``report`` (pages to read).
"""
