"""The commands of the application, from itself: their functions and their options, by the words that are typed."""

from unstir import cli


def _commands(app=cli.app, path=()):
    commands = {path: app.default_command} if path and app.default_command else {}
    for name in app:
        if not name.startswith("-"):
            commands |= _commands(app[name], (*path, name))
    return commands


COMMANDS = _commands()


def options_of(command):
    """The names of the arguments of a command."""
    app = cli.app
    for name in command:
        app = app[name]
    arguments = app.assemble_argument_collection()
    return {name for each in arguments if each.parse and not each.children for name in each.names}
