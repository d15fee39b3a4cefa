# As llama-6m_dms-search-80_text.py, to half of the parameters.
_base_ = './llama-6m_dms-search-80_text.py'

custom_hooks = [dict(_base_.resource_hook, target=dict(params=0.5))]
