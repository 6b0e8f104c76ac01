"""Plain implementations of the papers' algorithms, to measure against.

Written from the papers, without the plugin and without its short cuts: a statistic for every layer,
sequences one at a time, every block forwarded twice. Kept simple, not slow.
"""
