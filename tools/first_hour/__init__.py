"""A newcomer's first hour with a built wheel, as a script that runs in CI and writes the transcript of the docs."""
