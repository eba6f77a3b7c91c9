"""From measurements to verdicts: statistics, thresholds, calibrations, attribution."""
