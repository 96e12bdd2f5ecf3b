"""`uplift doctor` says what is wrong with a deployment, and what to do. It changes nothing.

* `examine`: examines all parts, one after the other
* `configuration`, `ledger`, `keys`, `work`, `calls`, `processes`, `queues`, `upstream`: one part
  each, in this order. In each file one function asks, and pure functions judge
* `findings`: a line of the result
"""
