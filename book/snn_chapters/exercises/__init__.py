"""The checks of the exercises, a module for each chapter; `snn_helpers.long.exercise` holds what they share."""
