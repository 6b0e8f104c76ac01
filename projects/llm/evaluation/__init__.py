from .lm_eval import LMEval
from .perplexity import Perplexity

__all__ = ['LMEval', 'Perplexity']
