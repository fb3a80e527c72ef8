"""Where the API listens and how its live streams behave."""

from pydantic import Field

from store.settings import StoreSettings


class ServiceSettings(StoreSettings):
    """Settings of the API process, from `DARTBOARD_*` variables."""

    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0 or :: makes the API reachable from other machines."""
    port: int = Field(default=8000, ge=0, le=65_535)
    """Port to listen on; 0 takes a free one."""
    database_connections: int = Field(default=8, ge=1, le=1000)
    """Connections that requests share; one more listens for events."""
    stream_poll_seconds: float = Field(default=5.0, gt=0, le=600)
    """How often an event stream looks by itself, in case a notification got lost."""
    stream_ping_seconds: float = Field(default=15.0, gt=0, le=600)
    """How long an event stream stays silent before it sends a comment to keep proxies content."""
    shutdown_seconds: int = Field(default=10, ge=1, le=600)
    """How long requests in progress may go on after SIGTERM."""
    webhooks_allow_private: bool = False
    """Whether webhooks may lead to this machine and to private networks."""
    webhooks_senders: int = Field(default=8, ge=0, le=1000)
    """Messages to webhooks that this process sends at a time; 0 leaves them to others."""
    webhooks_poll_seconds: float = Field(default=5.0, gt=0, le=600)
    """How often it looks for messages whose next attempt is due."""
