"""The report: the tables and figures of the paper, with measured results next to the published ones."""
