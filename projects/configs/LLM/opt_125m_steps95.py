_base_ = ['./opt_125m.py', '../_base_/prune/steps.py']
