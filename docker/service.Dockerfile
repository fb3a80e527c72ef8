# The HTTP service and the migrations: no torch, no Ray.
FROM python:3.12-slim

WORKDIR /dartboard
COPY requirements-service.lock ./
RUN pip install --no-cache-dir --require-hashes -r requirements-service.lock

COPY pyproject.toml README.md ./
COPY search_core search_core
COPY store store
COPY migrations migrations
COPY service service
COPY dartboard dartboard
RUN pip install --no-cache-dir --no-deps --no-build-isolation . \
    && useradd --create-home dartboard \
    && mkdir /checkpoints \
    && chown dartboard /checkpoints
USER dartboard

ENV DARTBOARD_HOST=0.0.0.0 DARTBOARD_PORT=8000
EXPOSE 8000
CMD ["python", "-m", "service"]
