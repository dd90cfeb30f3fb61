"""Reports: means with intervals, verdicts, the terminal, files and pages."""
