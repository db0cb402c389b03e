"""`python -m migrate`: the same as the command `migrate`."""

from migrate.cli.main import command

if __name__ == "__main__":
    command()
