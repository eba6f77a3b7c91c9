"""From images to what is measured of them: reconstructions, losses, texture."""
