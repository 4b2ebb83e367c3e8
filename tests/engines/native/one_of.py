"""A plugin of pytest that runs one test in so many: `-p tests.engines.native.one_of --one-of=4`."""


def pytest_addoption(parser):
    parser.addoption("--one-of", type=int, default=1, help="run one test in so many")


def pytest_collection_modifyitems(config, items):
    items[:] = items[:: config.getoption("--one-of")]
