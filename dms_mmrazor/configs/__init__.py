"""Base files of configs in mmengine's newer style, ``with read_base()``."""
