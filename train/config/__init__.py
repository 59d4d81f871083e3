"""Recipes: what they can say, how they are read and checked, and the shipped ones."""
