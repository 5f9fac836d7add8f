"""Runs the command as `python -m nasi_jax`."""

import sys

from nasi_jax.cli import main

sys.exit(main())
