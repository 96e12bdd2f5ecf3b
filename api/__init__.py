"""The HTTP API. It accepts uploads and shows their statuses; `uplift` does the work behind it.

In the order in which a request passes them:

* `process` starts the server, `app` puts the application together.
* `request_ids`, `slashes`, `latency`, `traced_requests`, `error_handlers`: middleware, around every
  request.
* `direct_route`: the way of single uploads past the router.
* `callers`, `named_user`: who calls, and with which scopes; whom the request names.
* `rate_limits`, `idempotency`, `admission`: whether the request may enter; `turnstile`, `spacing`:
  when it goes on.
* `bodies`, `gzip_bodies`, `batch_bodies`: the body.
* `uploads`, `batches`, `control`, `users`, `device_tokens`, `reading`, `health`, `jwks`: the
  routes.
* `schemas`, `batch_schemas`, `control_schemas`, `user_schemas`, `pages`: the JSON of the answers.
* `problems`: the answers that are errors.
* `openapi`, `upload_openapi`, `batch_openapi`, `reading_openapi`: the description of it all.
"""
