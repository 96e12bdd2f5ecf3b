FROM python:3.13-slim-bookworm AS build
WORKDIR /src
COPY requirements-dev.lock ./
# The build backend at the version and with the hashes of the lock, so that nothing unpinned is
# fetched to build with.
RUN awk '/^setuptools==/ {on = 1} on {print} on && !/\\$/ {exit}' requirements-dev.lock > build.lock \
 && pip install --no-cache-dir --require-hashes -r build.lock
COPY . .
RUN pip wheel --no-cache-dir --no-deps --no-index --no-build-isolation --wheel-dir /wheels .

FROM python:3.13-slim-bookworm
ENV PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 UPLIFT_DATA_DIR=/var/lib/uplift UPLIFT_API_HOST=0.0.0.0
RUN useradd --system --user-group --uid 10001 --home-dir /var/lib/uplift uplift \
 && install --directory --owner=uplift --group=uplift --mode=0700 /var/lib/uplift
COPY requirements.lock /tmp/
RUN pip install --no-cache-dir --require-hashes -r /tmp/requirements.lock
COPY --from=build /wheels /tmp/wheels
RUN pip install --no-cache-dir --no-deps --no-index /tmp/wheels/*.whl
USER uplift
WORKDIR /var/lib/uplift
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=10s --start-period=20s \
  CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8080/healthz', timeout=5)"]
# The API. The other processes and their commands: docker-compose.yml
CMD ["uplift", "api"]
