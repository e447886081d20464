import logging

# PEFT imports bitsandbytes where it is installed, which then recommends a package of kernels for its own
# layers: they do not run here.
logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
