"""llmd: a local daemon that makes LLM calls for every program on the machine.

Importing the package imports nothing heavy; the names that it exports are loaded when they are first used.
"""

__version__ = "0.1.0"
