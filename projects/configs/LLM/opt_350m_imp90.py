_base_ = ['./opt_350m.py', '../_base_/prune/imp.py']
