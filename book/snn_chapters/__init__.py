"""What one chapter has of its own: its model, its trial, its records, the checks of its exercises.

A module for each subject, named after it. They use `snn_helpers` and know nothing of one another.
"""
