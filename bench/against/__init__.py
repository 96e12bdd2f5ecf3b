"""`make bench ARGS="--against COMMIT"`: this tree against another commit, in one run.

`work_tree` sets up the other commit, `layouts` names the commands and settings of both, `side`
runs each by its own tree, `rounds` measures them in turn, `judge` says whether this tree is slower.
"""
