"""Faces: drawn avatars with known attributes, and a reader of CelebA."""
