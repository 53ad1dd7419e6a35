"""The command line: a file a command. Parses, calls one function, prints."""
