"""`python -m spikebridge`: the command line."""

from spikebridge.cli import main

if __name__ == "__main__":
    main(prog_name="spikebridge")
