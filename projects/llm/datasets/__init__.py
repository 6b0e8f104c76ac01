from .token_windows import TokenWindows

__all__ = ['TokenWindows']
