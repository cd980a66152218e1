"""Figures, comparison pages and reports."""
