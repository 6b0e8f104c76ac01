from .causal_lm import HFCausalLM
from .generation import generate_text
from .preprocessor import TokenPreprocessor
from .tokenizer import load_tokenizer

__all__ = ['HFCausalLM', 'TokenPreprocessor', 'generate_text', 'load_tokenizer']
