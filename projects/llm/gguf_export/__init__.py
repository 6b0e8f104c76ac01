"""Language models as GGUF files, for llama.cpp."""

from .request import check_gguf
from .writing import save_gguf

__all__ = ['check_gguf', 'save_gguf']
