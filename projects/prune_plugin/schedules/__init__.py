"""The target of each round, one schedule per file."""

from .one_shot import OneShot

__all__ = ['OneShot']
