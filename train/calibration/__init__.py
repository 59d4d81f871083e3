"""A camera and its movement from recordings: the settings of the simulator that trains, fitted to any set of them."""
