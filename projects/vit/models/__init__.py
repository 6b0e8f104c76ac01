from .preprocessor import ImageClsPreprocessor
from .timm_classifier import TimmClassifier

__all__ = ['ImageClsPreprocessor', 'TimmClassifier']
