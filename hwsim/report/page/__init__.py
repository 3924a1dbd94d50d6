"""The report and the comparison as self-contained pages; each is a function of report.json alone."""
