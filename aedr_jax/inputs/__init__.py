"""Where images come from: folders, tables, archives and datasets, decoded in worker processes."""
