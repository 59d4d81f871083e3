"""AEDAT, the formats of iniVation's recorders: 2.0 (jAER), 3.1 (cAER) and 4 (DV)."""
