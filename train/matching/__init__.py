"""The static image behind a recording: all of them rendered by the calibrated camera, and the nearest."""
