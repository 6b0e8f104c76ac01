# VAD-tiny without 30 % of its parameters, protecting the planned path.
_base_ = ['./VAD_tiny_prune0.3.py']
prune_cfg = dict(calibration=dict(loss_weights=dict(planning=4.0)))
