# Structure-only search (Table 1): start from a trained supernet and train
# nothing but the pruning ratios, for a few hundred iterations; the subnet is
# used without retraining. As pretrained.py, and the training is short:
#
#   train_cfg = dict(_delete_=True, **_base_.search_train_cfg)
#   param_scheduler = []
_base_ = './pretrained.py'

algorithm = dict(structure_only=True)

# 800 iterations, as in section 4.1.1 of the paper.
search_train_cfg = dict(by_epoch=False, max_iters=800, val_interval=800)
search_default_hooks = dict(
    checkpoint=dict(by_epoch=False, interval=200),
    logger=dict(interval=50),
)
search_log_processor = dict(by_epoch=False)
