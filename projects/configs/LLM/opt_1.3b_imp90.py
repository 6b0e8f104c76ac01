_base_ = ['./opt_1.3b.py', '../_base_/prune/imp.py']
