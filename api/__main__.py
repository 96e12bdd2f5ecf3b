"""`python -m api`: the web process."""

import uvicorn

from relay.settings import Settings


def main() -> None:
    """Serve the API until SIGINT or SIGTERM."""
    settings = Settings()
    uvicorn.run(
        "api.app:create_app",
        factory=True,
        host=settings.api_host,
        port=settings.api_port,
        # The app configures logging; uvicorn's own would print its way past the allow-list.
        log_config=None,
        # Its lines hold query strings, and those hold people's names and record ids.
        access_log=False,
        server_header=False,
        # Long-polls may be under way: they end with the process, and clients ask again.
        timeout_graceful_shutdown=5,
    )


if __name__ == "__main__":
    main()
