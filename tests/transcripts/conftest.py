def pytest_addoption(parser):
    parser.addoption("--rewrite", action="store_true", help="write what happens into the transcripts; read the diff")
