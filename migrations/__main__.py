"""`python -m migrations`: migrates the deployment's database."""

import sys

from migrations.upgrade import upgrade
from store.errors import DatabaseUnavailableError
from store.sessions import database_url
from store.settings import StoreSettings


def main() -> int:
    """Migrates the database that the settings name.

    Returns:
        The exit status.
    """
    try:
        upgrade(database_url(StoreSettings()))
    except DatabaseUnavailableError as error:
        sys.stderr.write(f"{error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
