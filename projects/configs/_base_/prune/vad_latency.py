# A fraction of the time of a frame, as measured on the device at hand.
_base_ = ['./vad.py']
prune_cfg = dict(budget=dict(_delete_=True, type='latency', ratio=0.3, points=4, seconds=0.3))
