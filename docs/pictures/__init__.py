"""The drawings of the documentation: `python -m docs.pictures.draw` draws all of them."""
