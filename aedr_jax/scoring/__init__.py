"""From a source of images to rows of scores and verdicts, on one device or a cluster."""
