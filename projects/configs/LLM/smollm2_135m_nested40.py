# Four nested models: each step scores again what the one before has left. At 40 % that loses less than
# scoring once, at 25 % about as much.
_base_ = './smollm2_135m_global25.py'
prune_cfg = dict(budget=dict(_delete_=True, type='params', ratios=[0.1, 0.2, 0.3, 0.4]))
