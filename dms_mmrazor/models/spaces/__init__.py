"""Supernets of other papers' search spaces, as plain models of mmpretrain.

Configs import them by ``custom_imports``: mmpretrain is optional.
"""

from dms_mmrazor.models.spaces.autoformer import PlainAutoFormer
from dms_mmrazor.models.spaces.ofa import OFAMobileNetV3

__all__ = ['OFAMobileNetV3', 'PlainAutoFormer']
