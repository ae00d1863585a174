"""The subcommands of `lightning`, one file each."""
