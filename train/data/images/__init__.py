"""What simulators make of static images: light in front of a camera, or events by no camera at all."""
