"""The LLM family: Hugging Face causal language models, texts and perplexity, under MMEngine."""

from . import datasets, evaluation, models
from .slim_folder import load_slim

__all__ = ['datasets', 'evaluation', 'load_slim', 'models']
