"""The forms in which a recommended recipe can be taken away."""

from typing import Literal

Form = Literal["yaml", "torch", "hf", "lightning"]
"""A study's sections; plain torch; Hugging Face's Trainer; Lightning's."""
