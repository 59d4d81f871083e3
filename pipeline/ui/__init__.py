"""How the program speaks and looks: terminal, completion, and the look of its HTML pages and pictures."""
