"""The command line: one file per group of verbs."""

import gc

gc.set_threshold(50_000)  # what is loaded stays: looking for garbage in it is a tenth of the time until a verb begins
