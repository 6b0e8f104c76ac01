"""The embedded toy nuScenes: a small synthetic drive in the official nuScenes schema."""

from .drive import write_toy

__all__ = ['write_toy']
