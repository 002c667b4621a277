"""What `pprofpy heap` brings into a target, and how it talks to it.

`agent.py` and `sampler/` run inside the target; `session.py` is our side of the talk; `samples.py` and `traces.py`
turn what comes back into profiles.
"""
