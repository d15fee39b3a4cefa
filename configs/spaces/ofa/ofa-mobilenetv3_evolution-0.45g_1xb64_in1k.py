# The same space and target by evolution, in OFA's numbers (DMS paper, Table
# 3): the search's config and the settings of the loop.
_base_ = './ofa-mobilenetv3_dms-structure-only-0.45g_8xb64-800i_in1k.py'

train_cfg = dict(
    _delete_=True,
    type='mmrazor.DMSEvolutionLoop',
    population=100,
    generations=500,
    parents=25,
    mutations=50,
    mutation_prob=0.1,
    recalibrate=4096,
    fitness=dict(images=10000),
)
