_base_ = ['./vit_small_cifar100.py', '../_base_/prune/heads_neurons.py']
