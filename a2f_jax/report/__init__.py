"""The report: the tables and figures of the paper, with measured results beside the published ones."""
