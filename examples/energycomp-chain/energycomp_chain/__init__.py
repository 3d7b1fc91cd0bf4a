"""Plans of ten overlapping factors, around a building, from short walks."""
