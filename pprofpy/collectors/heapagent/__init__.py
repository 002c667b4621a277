"""What `pprofpy heap` brings into a target, and how it talks to it.

`agent.py` and `sampler/` run inside the target; `link.py` and `control.py` are our side of the talk; `samples.py` and
`traced_blocks.py` turn what comes back into profiles.
"""
