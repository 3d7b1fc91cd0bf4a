"""The tabs of the page: one module each, with its components and what happens when they change."""
