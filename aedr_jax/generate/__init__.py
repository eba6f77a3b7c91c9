"""Images that a model makes, to calibrate and to test on."""
