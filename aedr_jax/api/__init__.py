"""Files in, decisions out: whatever the command line does is one call here, and gives data back.

    import aedr_jax as aedr

    run = aedr.api.score("photos", "mini-vq")                             # run.rows
    made = aedr.api.calibrate("own", "mini-vq", out="calibrations/mini-vq.json")
    found = aedr.api.attribute("photos", calibrations="calibrations")     # found.verdicts

Inputs are a `Source`, or whatever `open_source` reads: folders, patterns, image files, archives, tables, datasets, one
of them or a list. How images are measured is one `Setup`, the same for all three. Ctrl-C, an input that breaks off and
files that were passed over are said by the `Run`; a wrong call raises `AedrError`. Nothing here prints.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
