"""How a destination is logged in to: a token a person, or a login of the deployment.

* `channels`: each destination with its client and its login
* `logins`: the deployment's: none, basic, a token from a file; `client_credentials`: one from a
  token endpoint, for all processes

Access tokens for users. The files, in the order in which a request for a token passes them:

* `person`: whose token is wanted, and the token itself
* `access`: the entry: gives a token, from the cache or from the ledger, or has it refreshed
* `single_flight`: one refresh per user at a time in this process
* `cache`: the tokens of the last seconds
* `refusals`: stops the refreshes where 1upHealth refuses fresh tokens too
* `refresh`: one refresh per user at a time among all processes
* `grant_store`: reads grants, and saves new tokens so that none is lost
* `obtain`: gets new tokens by the refresh token, or else by a new code
* `token_endpoint`: the HTTP calls: users, codes, tokens; `token_request` makes one
* `quota`: counts the calls to user management, with its Lua scripts
"""
