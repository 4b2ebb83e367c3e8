"""The local web app: runs as they train, the step explorer, a playground. Served to this machine alone.

Nothing else of the library imports this package, so that Starlette and uvicorn (the extra `ui`) stay optional.
"""
