# Dispatcher, runners and Ray nodes: the whole of Dartboard. torch's wheels bring CUDA; a node's
# driver comes from its host (--gpus).
FROM python:3.12-slim

# Triton compiles kernels for a node's GPU, and what calls them in C.
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /dartboard
COPY requirements.lock ./
RUN pip install --no-cache-dir --require-hashes -r requirements.lock

COPY pyproject.toml README.md ./
COPY search_core search_core
COPY store store
COPY migrations migrations
COPY service service
COPY workers workers
COPY dartboard dartboard
RUN pip install --no-cache-dir --no-deps --no-build-isolation . \
    && useradd --create-home dartboard \
    && mkdir -p /checkpoints /home/dartboard/state \
    && chown dartboard /checkpoints /home/dartboard/state
USER dartboard

ENV DARTBOARD_HOME=/home/dartboard/state DARTBOARD_STORAGE=/checkpoints
CMD ["python", "-m", "workers.dispatcher"]
