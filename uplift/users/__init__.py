"""Users: how a person becomes one, and how Uplift forgets them.

* `provision`: creates the user here and at 1upHealth, and keeps a grant that works
* `erase`: destroys the user's key, and then removes all their rows
"""
