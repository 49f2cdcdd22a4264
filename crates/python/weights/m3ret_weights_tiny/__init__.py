"""The weights of the model m3ret-tiny, under CC BY-NC-SA 4.0: for research, not for commerce. Its card is
``m3ret-tiny/README.md`` in this folder; ``m3ret.load("m3ret-tiny")`` finds it."""
