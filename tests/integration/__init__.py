"""Do several parts of the project work together in one process?"""
