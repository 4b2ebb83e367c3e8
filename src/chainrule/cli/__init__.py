"""The command line: a file a command, put together in chainrule.cli.main."""
