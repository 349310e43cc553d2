"""``python -m deploy`` is what the launcher ``./trireme`` runs."""

from deploy.cli import main

if __name__ == "__main__":
    main()
