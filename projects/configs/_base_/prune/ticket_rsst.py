# As Refill, but the units that leave are pulled towards zero over a state and go at its end.
_base_ = './ticket_refill.py'
prune_cfg = dict(
    penalty=dict(type='RSST', strength=1.0, schedule='exp_custom_exponents', exponents=4.0)
)
