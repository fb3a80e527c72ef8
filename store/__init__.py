"""What Dartboard remembers: searches, trials, metrics, events and architectures in PostgreSQL.

Operations are plain functions over a SQLAlchemy `Session`; the workers call them as they are, the
service through `AsyncSession.run_sync`. Each runs inside the caller's transaction and commits
nothing itself.
"""
