"""`uplift doctor` says what is wrong with a deployment, and what to do. It changes nothing, but for
a test Patient at each destination if it is asked to.

* `examine`: examines all parts, one after the other
* `configuration`, `ledger`, `keys`, `work`, `calls`, `processes`, `queues`, `upstream`, `logins`,
  `servers`: one part each, in this order. In each file one function asks, and pure functions judge
* `manual`: what a server says of itself, and what it must be able to; `trial`: the test Patient
* `findings`: a line of the result
"""
