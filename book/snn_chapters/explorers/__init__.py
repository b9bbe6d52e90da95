"""The live explorers of single chapters, a module for each; `snn_helpers.widgets` holds what they share.

Their scripts lie with the others in `snn_helpers/js`: a module `NAME_model.js` for what is computed, which a test
holds to Python, and `NAME_explorer.js` for what is drawn.
"""
