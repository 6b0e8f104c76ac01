_base_ = ['./opt_2.7b.py', '../_base_/prune/imp.py']
