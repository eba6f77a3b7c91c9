"""`python -m aedr_jax.cli`."""

import sys

from aedr_jax.cli.main import main

sys.exit(main())
